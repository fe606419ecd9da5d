// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func init() {
	Register(Driver{
		Type:         policy.ChannelOpenStack,
		Acknowledged: true,
		Network:      true,
		Compact:      true,
		Deadline:     30 * time.Second,
		Check:        func(policy.Channel) error { return nil },
		New: func(c policy.Channel, _ *target.Target) Channel {
			return &openstack{user: c.User, dial: dialer.DialContext}
		},
	})
}

// passwordURL is where OpenStack's metadata service takes the one text that an
// instance may leave for its owner, and says what it has: nova/api/metadata/password.py.
const passwordURL = "http://169.254.169.254/openstack/latest/password"

var (
	errNoCompact  = errors.New("there is no form of this card that is small enough; seal it to one age1… recipient, then make it anew: totp-agent reset")
	errNoPassword = errors.New("the metadata service has no such place: this is no OpenStack, or one without it")
)

// openstack leaves a card, in its compact form and as base64, where instances
// leave their administrator's encrypted password. The way is that of all
// metadata: plain HTTP to a link-local address, which the host answers.
//
// What was once written there stays: a second POST is answered 409, by whomever
// the first was, since any program of the instance may make one. So what is there
// is looked at then.
type openstack struct {
	user string
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Name is the type, and the user if the channel is for one.
func (o *openstack) Name() string {
	if o.user != "" {
		return policy.ChannelOpenStack + " for " + o.user
	}
	return policy.ChannelOpenStack
}

func (*openstack) Acknowledged() bool { return true }

func (o *openstack) Send(ctx context.Context, item Item) error {
	if item.Compact == nil {
		return Unsent(errNoCompact)
	}
	return inPlace(o.send(ctx, base64.StdEncoding.EncodeToString(item.Compact)))
}

func inPlace(err error) error {
	if err != nil {
		err = fmt.Errorf("metadata service: %w", err)
	}
	return err
}

func (o *openstack) send(ctx context.Context, text string) error {
	if len(text) > policy.CompactRoom {
		return Unsent(errNoCompact)
	}
	resp, err := o.do(ctx, http.MethodPost, text)
	if err != nil {
		return err
	}
	resp.Body.Close()
	code := resp.StatusCode
	answer := fmt.Errorf("answer %d: %w", code, ErrStatus)
	switch {
	case code >= 200 && code <= 299:
		return nil
	case code == http.StatusConflict:
		return o.compare(ctx, text)
	case code == http.StatusNotFound:
		answer = errNoPassword
	}
	return unlessUnclear(code, Later(answer, retryAfter(resp, time.Now())))
}

// Look reads what is there once more: an hour later the service may answer, and not
// from memory.
func (o *openstack) Look(ctx context.Context, item Item) error {
	if item.Compact == nil {
		return Unsent(errNoCompact)
	}
	return inPlace(o.compare(ctx, base64.StdEncoding.EncodeToString(item.Compact)))
}

// compare says of a place that is taken whether our own text is there: an earlier
// attempt whose answer was lost has left it.
func (o *openstack) compare(ctx context.Context, text string) error {
	err := fmt.Errorf("answer 409: %w", ErrTaken)
	resp, rerr := o.do(ctx, http.MethodGet, "")
	if rerr != nil {
		return Unsent(err)
	}
	defer resp.Body.Close()
	there, rerr := io.ReadAll(io.LimitReader(resp.Body, 2*policy.CompactRoom))
	// The service may answer from memory, of a moment when the place was empty.
	if rerr != nil || resp.StatusCode != http.StatusOK || len(there) == 0 {
		return Unsent(err)
	}
	if strings.TrimSpace(string(there)) == text {
		return nil
	}
	return Unsent(fmt.Errorf("%w, %w", err, errForeign))
}

// do makes one request, and follows nothing.
func (o *openstack) do(ctx context.Context, method, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, passwordURL, strings.NewReader(body))
	if err != nil {
		return nil, Unsent(errRequest)
	}
	req.Header.Set("Content-Type", "text/plain")
	req.Header.Set("User-Agent", "totp-agent")
	// No proxy: what is link-local is of this host.
	client := http.Client{
		Transport:     &http.Transport{DialContext: o.dial, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return do(&client, req, time.Now)
}
