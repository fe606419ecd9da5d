// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// ErrSender means that the process that speaks to the network could not be used, or
// ended without a valid answer.
var ErrSender = errors.New("the sending process failed; see: journalctl -t totp-agent")

// A SenderConn is a connection to a process that makes one attempt, see [Serve].
type SenderConn interface {
	io.ReadWriteCloser
	CloseWrite() error
}

// remote is a channel whose attempts another process makes. Delivery runs as root
// and keeps the records. What speaks to the network is a process of another user,
// which gets one envelope and the settings of one channel, and lives for one attempt.
type remote struct {
	Channel // the name, and whether it acknowledges
	driver  Driver
	config  policy.Channel
	t       *target.Target
	open    func(context.Context) (SenderConn, error)
}

// remoteLooker is a remote channel that can look at what it has found.
type remoteLooker struct{ remote }

// viaSender returns the route with its attempts made by another process.
func (r route) viaSender(t *target.Target, open func(context.Context) (SenderConn, error)) route {
	if !r.network {
		return r
	}
	ch := remote{r.Channel, drivers[r.config.Type], r.config, t, open}
	_, looks := r.Channel.(Looker)
	r.Channel = ch
	if looks {
		r.Channel = remoteLooker{ch}
	}
	return r
}

func (r remote) Send(ctx context.Context, item Item) error { return r.attempt(ctx, false, item) }

func (r remoteLooker) Look(ctx context.Context, item Item) error { return r.attempt(ctx, true, item) }

func (r remote) attempt(ctx context.Context, look bool, item Item) error {
	q, err := r.request(ctx, look, item)
	if err != nil {
		return Unsent(err)
	}
	conn, err := r.open(ctx)
	if err != nil {
		return Unsent(fmt.Errorf("%w: %w", ErrSender, err))
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	// Half a request is not acted upon.
	if _, err := conn.Write(q); err != nil {
		return Unsent(fmt.Errorf("%w: %w", ErrSender, err))
	}
	if err := conn.CloseWrite(); err != nil {
		return fmt.Errorf("%w: %w", ErrSender, err)
	}
	answer, err := io.ReadAll(io.LimitReader(conn, maxReply+1))
	if ctx.Err() != nil {
		return ErrTimeout
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSender, err)
	}
	return parseReply(answer)
}

// request reads the files that the channel names: the sender cannot.
func (r remote) request(ctx context.Context, look bool, item Item) ([]byte, error) {
	c := r.config
	q := sendRequest{
		Look: look, Channel: c, URL: c.URL, Headers: c.Headers, Template: c.Template, HMACKey: c.HMACKey,
		Item: item, Files: map[string][]byte{}, Env: map[string]string{}, Time: r.driver.Deadline,
	}
	if end, ok := ctx.Deadline(); ok {
		q.Time = time.Until(end)
	}
	q.Time = q.Time * 9 / 10 // so that its own answer comes in time
	for _, name := range target.DeliverEnv {
		if value, ok := os.LookupEnv(name); ok {
			q.Env[name] = value
		}
	}
	if r.driver.Files != nil {
		if err := r.driver.Files(c, r.t); err != nil {
			return nil, err
		}
	}
	read := channelFiles(c, r.t)
	for _, name := range []string{c.CAFile, c.ClientCert, c.ClientKey} {
		if name == "" {
			continue
		}
		data, err := read(name)
		if err != nil {
			return nil, err
		}
		q.Files[name] = data
	}
	return json.Marshal(q)
}

// A sendRequest is all that the sender gets to know. The fields beside Channel are
// those that a policy never shows as JSON.
type sendRequest struct {
	Look     bool              `json:"look,omitempty"` // look at what was found, send nothing
	Channel  policy.Channel    `json:"channel"`
	URL      string            `json:"url,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"`
	Template string            `json:"template,omitempty"`
	HMACKey  string            `json:"hmac_key,omitempty"`
	Item     Item              `json:"item"`
	Files    map[string][]byte `json:"files"` // by the names in Channel
	Env      map[string]string `json:"env"`
	Time     time.Duration     `json:"time"`
}

// A sendReply is the outcome of an attempt. The sender is the one process that a
// hostile server could take over, so nothing of it is believed beyond its form.
type sendReply struct {
	Done    bool          `json:"done,omitempty"` // Send returned nil; nothing else is set
	Error   string        `json:"error,omitempty"`
	Taken   bool          `json:"taken,omitempty"`
	Foreign bool          `json:"foreign,omitempty"`
	Unsent  bool          `json:"unsent,omitempty"`
	Later   time.Duration `json:"later,omitempty"`
}

const (
	maxReply   = 4 << 10
	maxRequest = 8 << 20 // the files of a channel are 1 MiB at most each
	maxAttempt = 5 * time.Minute
)

// replyTo says how an attempt ended.
func replyTo(err error) sendReply {
	if err == nil {
		return sendReply{Done: true}
	}
	return sendReply{
		Error:   clip(err.Error()),
		Taken:   errors.Is(err, ErrTaken),
		Foreign: errors.Is(err, errForeign),
		Unsent:  !maySent(err),
		Later:   wish(err),
	}
}

// parseReply is the error of an attempt by its reply. What is not a reply is an
// error after which the other end may have the envelope.
func parseReply(data []byte) error {
	var a sendReply
	if len(data) > maxReply || strict(data, &a) != nil {
		return ErrSender
	}
	if a.Done && a == (sendReply{Done: true}) {
		return nil
	}
	if a.Done || a.Error == "" {
		return ErrSender
	}
	r := reported{text: clip(a.Error)}
	for _, k := range []struct {
		set bool
		err error
	}{{a.Taken, ErrTaken}, {a.Foreign, errForeign}} {
		if k.set {
			r.is = append(r.is, k.err)
		}
	}
	err := Later(r, a.Later)
	if a.Unsent {
		err = Unsent(err)
	}
	return err
}

// reported is an error of another process.
type reported struct {
	text string
	is   []error
}

func (r reported) Error() string { return r.text }

func (r reported) Unwrap() []error { return r.is }
