// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func init() {
	Register(Driver{
		Type:         policy.ChannelHTTP,
		Acknowledged: true,
		Network:      true,
		Deadline:     time.Minute,
		Check:        checkHTTP,
		Files:        filesOfHTTP,
		Place:        placeOfHTTP,
		New: func(c policy.Channel, t *target.Target) Channel {
			return &web{c: c, read: channelFiles(c, t), dial: dialer.DialContext, now: time.Now}
		},
	})
}

// dialer finds addresses by Go's own resolver, which asks what /etc/resolv.conf
// names and needs no library of the machine's.
var dialer = net.Dialer{Timeout: 15 * time.Second, Resolver: &net.Resolver{PreferGo: true}}

// web sends envelopes to an HTTPS server.
//
// The URL's path and query, the headers and the keys are capabilities: none of
// them is in the name, an error or a log line.
type web struct {
	c    policy.Channel
	read func(name string) ([]byte, error) // a file that the channel names
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	now  func() time.Time
}

// Name is "http:" and the server's name, with its port if that is not 443, and
// with the user if the channel is for one. A tag of its place comes to it.
func (w *web) Name() string {
	u, err := url.Parse(w.c.URL)
	if err != nil {
		return policy.ChannelHTTP
	}
	name := policy.ChannelHTTP + ":" + strings.TrimSuffix(strings.ToLower(u.Host), ":443")
	if w.c.User != "" {
		name += " for " + w.c.User
	}
	return name
}

func (*web) Acknowledged() bool { return true }

// placeOfHTTP is where a channel puts envelopes. A URL that is good for one is that
// place, with its signature. Of another the query, and a user ahead of the host, are
// credentials, and the place is the same when they change.
func placeOfHTTP(c policy.Channel) string {
	u, err := url.Parse(c.URL)
	if c.TakesOne() || err != nil {
		return c.URL
	}
	return u.Path
}

// Send makes one request. What the answer's code says counts as soon as the
// answer's header is there; its body is no part of it.
func (w *web) Send(ctx context.Context, item Item) error {
	if err := w.send(ctx, item); err != nil {
		return fmt.Errorf("%s: %w", w.place(), err)
	}
	return nil
}

// place is the URL as it may be shown.
func (w *web) place() string {
	u, err := url.Parse(w.c.URL)
	if err != nil {
		return "https"
	}
	return "https://" + u.Host + "/…"
}

func (w *web) send(ctx context.Context, item Item) error {
	req, err := w.request(ctx, item)
	if err != nil {
		return Unsent(err)
	}
	client, err := w.client()
	if err != nil {
		return Unsent(err)
	}
	defer client.CloseIdleConnections()
	resp, err := do(client, req, w.now)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return w.judge(resp)
}

func (w *web) request(ctx context.Context, item Item) (*http.Request, error) {
	body, kind, err := w.body(item)
	if err != nil {
		return nil, err
	}
	method := w.c.Method
	if method == "" {
		method = policy.DefaultMethod
	}
	// An error of the request's maker repeats the URL.
	req, err := http.NewRequestWithContext(ctx, method, w.url(item), bytes.NewReader(body))
	if err != nil {
		return nil, errRequest
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("User-Agent", "totp-agent")
	for name, value := range w.c.Headers {
		req.Header.Set(name, fill(value, item, url.PathEscape))
	}
	if w.c.HMACKey != "" {
		mac := hmac.New(sha256.New, []byte(w.c.HMACKey))
		mac.Write(body)
		req.Header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
		if req.Header.Get(frame.UserHeader) == "" {
			req.Header.Set(frame.UserHeader, item.User)
		}
		req.Header.Set(frame.SignatureHeader,
			frame.Sign([]byte(w.c.HMACKey), method, req.URL.RequestURI(), req.Header.Get(frame.UserHeader), body))
	}
	return req, nil
}

// url is the URL for one envelope.
func (w *web) url(item Item) string {
	path, query, asked := strings.Cut(w.c.URL, "?")
	path = fill(path, item, url.PathEscape)
	if !asked {
		return path
	}
	return path + "?" + fill(query, item, url.QueryEscape)
}

// fill puts the envelope's facts into their places.
func fill(s string, item Item, escape func(string) string, more ...string) string {
	facts := map[string]string{"instance_id": item.InstanceID, "user": item.User, "id": item.ID, "hostname": item.Hostname}
	var pairs []string
	for _, name := range policy.Placeholders() {
		value := facts[name]
		if value == "" {
			value = "none" // a machine that nobody has named
		}
		pairs = append(pairs, "{"+name+"}", escape(value))
	}
	return strings.NewReplacer(append(pairs, more...)...).Replace(s)
}

// ageType is the registered media type of age files, armored ones too.
const ageType = "application/vnd.age"

func (w *web) body(item Item) (body []byte, kind string, err error) {
	if w.c.Body == "" || w.c.Body == policy.BodyRaw {
		return item.Sealed, ageType, nil
	}
	text, err := armored(item)
	if err != nil {
		return nil, "", err
	}
	if w.c.Body == policy.BodyArmored {
		return text, ageType, nil
	}
	template := w.c.Template
	if template == "" {
		template = policy.DefaultTemplate
	}
	return []byte(fill(template, item, inJSON,
		"{armored}", inJSON(string(text)),
		"{base64}", base64.StdEncoding.EncodeToString(item.Sealed))), "application/json", nil
}

// inJSON escapes s for the inside of a JSON string.
func inJSON(s string) string {
	b, _ := json.Marshal(s) // a string never fails
	return string(b[1 : len(b)-1])
}

func (w *web) client() (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, Time: w.now}
	if w.c.CAFile != "" {
		pool, err := w.roots()
		if err != nil {
			return nil, err
		}
		config.RootCAs = pool
	}
	if w.c.ClientCert != "" {
		cert, err := w.certificate()
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{cert}
	}
	first, err := url.Parse(w.c.URL)
	if err != nil {
		return nil, errRequest
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            w.dial,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    15 * time.Second,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch {
			case req.URL.Scheme != "https" || !strings.EqualFold(req.URL.Hostname(), first.Hostname()) || portOf(req.URL) != portOf(first):
				return Unsent(ErrElsewhere)
			case req.Method != via[0].Method || req.Body == nil:
				return Unsent(errNoEnvelope) // as browsers do, a request without it
			case len(via) > maxRedirects:
				return Unsent(errLoop)
			}
			return nil
		},
	}, nil
}

const maxRedirects = 3

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return "443"
}

func (w *web) roots() (*x509.CertPool, error) {
	text, err := w.read(w.c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("ca_file: %q: %w", w.c.CAFile, errNoCertificate)
	}
	return pool, nil
}

// certificate reads what the channel shows of itself. Its errors repeat nothing
// of the files.
func (w *web) certificate() (tls.Certificate, error) {
	cert, err := w.read(w.c.ClientCert)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("client_cert: %w", err)
	}
	key, err := w.read(w.c.ClientKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("client_key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("client_cert: %q, client_key: %q: %w", w.c.ClientCert, w.c.ClientKey, errKeyPair)
	}
	return pair, nil
}

// channelFiles reads the files that a channel names. The key is root's alone.
func channelFiles(c policy.Channel, t *target.Target) func(name string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if name == c.ClientKey {
			info, err := t.Stat(name)
			if err != nil {
				return nil, err
			}
			if uid, _, ok := target.Owner(info); !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 || ok && uid != os.Geteuid() {
				return nil, fmt.Errorf("%q: %w", name, errKeyOpen)
			}
		}
		return t.ReadFile(name)
	}
}

// filesOfHTTP looks at the files of an attempt, and does not begin it.
func filesOfHTTP(c policy.Channel, t *target.Target) error {
	_, err := (&web{c: c, read: channelFiles(c, t), now: time.Now}).client()
	return err
}

var errURL = errors.New("not an https URL")

// checkHTTP looks at what New and Send rely upon; the policy's own rules say
// more, and where.
func checkHTTP(c policy.Channel) error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return fmt.Errorf("url: %w", errURL)
	}
	return nil
}

// succeeds reports whether the code is one that confirms the envelope.
func (w *web) succeeds(code int) bool {
	if len(w.c.Success) > 0 {
		return slices.Contains(w.c.Success, code)
	}
	return code >= 200 && code <= 299
}
