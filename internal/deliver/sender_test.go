// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package deliver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// senderOf is a sender whose process is do.
func senderOf(t *testing.T, do func(request io.Reader, reply io.Writer)) func(context.Context) (SenderConn, error) {
	return func(context.Context) (SenderConn, error) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		must(t, err)
		var ends [2]*net.UnixConn
		for i, fd := range fds {
			f := os.NewFile(uintptr(fd), "sender")
			c, err := net.FileConn(f)
			must(t, err)
			f.Close()
			ends[i] = c.(*net.UnixConn)
		}
		go func() {
			defer ends[1].Close()
			do(ends[1], ends[1])
		}()
		return ends[0], nil
	}
}

// What an attempt ended with is the same on both sides of the process.
func TestSenderReply(t *testing.T) {
	for name, err := range map[string]error{
		"done":          nil,
		"failed":        ErrStatus,
		"unsent":        Unsent(ErrRefused),
		"later":         Later(ErrStatus, 90*time.Second),
		"unsent, later": Unsent(Later(ErrStatus, time.Minute)),
		"taken":         Unsent(fmt.Errorf("answer 412: %w", ErrTaken)),
		"foreign":       Unsent(fmt.Errorf("%w, %w", ErrTaken, errForeign)),
	} {
		data, jerr := json.Marshal(replyTo(err))
		must(t, jerr)
		got := parseReply(data)
		if (got == nil) != (err == nil) || got != nil && got.Error() != err.Error() {
			t.Errorf("%s: %v, want %v", name, got, err)
		}
		for _, is := range []error{ErrTaken, errForeign} {
			if errors.Is(got, is) != errors.Is(err, is) {
				t.Errorf("%s: is %v: %v", name, is, errors.Is(got, is))
			}
		}
		if maySent(got) != maySent(err) || wish(got) != wish(err) {
			t.Errorf("%s: may be sent %v, later %v", name, maySent(got), wish(got))
		}
	}
}

// A sender that a server has taken over can lie about the one envelope that it has,
// and about nothing else.
func TestHostileSender(t *testing.T) {
	for name, tt := range map[string]struct {
		reply string
		state string
		unset bool // certainly not sent
	}{
		"nothing":         {"", Failed, false},
		"not JSON":        {"GET / HTTP/1.1\r\n\r\n", Failed, false},
		"another field":   {`{"done":true,"id":"x"}`, Failed, false},
		"another type":    {`{"done":"yes"}`, Failed, false},
		"two values":      {`{"done":true}{"done":true}`, Failed, false},
		"done and error":  {`{"done":true,"error":"x"}`, Failed, false},
		"done and taken":  {`{"done":true,"taken":true}`, Failed, false},
		"neither":         {`{}`, Failed, false},
		"null":            {`null`, Failed, false},
		"too large":       {`{"error":"` + strings.Repeat("x", maxReply) + `"}`, Failed, false},
		"without end":     {strings.Repeat(" ", 1<<20), Failed, false},
		"control bytes":   {`{"error":"\u001b[2J\u202eevil\n\r","unsent":true}`, Failed, true},
		"pause for years": {`{"error":"x","unsent":true,"later":9000000000000000000}`, Failed, true},
		"negative pause":  {`{"error":"x","unsent":true,"later":-9000000000000000000}`, Failed, true},
		"number overflow": {`{"error":"x","later":1e400}`, Failed, false},
		"tampered":        {`{"error":"x","unsent":true,"taken":true,"foreign":true}`, Tampered, true},
		"a lie":           {`{"done":true}`, Delivered, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, policy.RequireAny)
			m.e.Jitter, m.e.Keep = "0s", "48h"
			m.e.Channels = []policy.Channel{{Type: policy.ChannelHTTP, URL: "https://panel.example/{id}", User: "alice"}, {Type: policy.ChannelFile}}
			ready(t, m.box, aliceID, "alice")
			ready(t, m.box, bobID, "bob")
			o := m.options()
			o.routes = nil
			asked := 0
			o.Sender = senderOf(t, func(r io.Reader, w io.Writer) {
				asked++
				io.Copy(io.Discard, r)
				io.WriteString(w, tt.reply)
			})
			if _, err := Run(t.Context(), m.tg, &m.e, o); err != nil {
				t.Fatal(err)
			}
			if asked != 1 {
				t.Errorf("asked %d times", asked)
			}
			r, err := m.box.Receipts(aliceID)
			must(t, err)
			for name, a := range r.Channels {
				if name == policy.ChannelFile {
					continue
				}
				if a.State != tt.state || a.Unclear == tt.unset || a.Next.After(m.clock.Add(longestWish+time.Second)) || strings.ContainsAny(a.Error, "\x1b\u202e\n\r") {
					t.Errorf("%+v", a)
				}
			}
			if r, err := m.box.Receipts(bobID); err != nil || len(r.Channels) != 1 {
				t.Errorf("bob's: %+v, %v", r, err)
			}
			// Whatever it says, both envelopes are there, for as long as the policy says.
			for _, id := range []string{aliceID, bobID} {
				if _, err := m.box.Envelope(id); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A sender that says nothing takes no longer than its channel may.
func TestSilentSender(t *testing.T) {
	tg, _ := targettest.New(t)
	c := policy.Channel{Type: policy.ChannelHTTP, URL: "https://panel.example/"}
	end := make(chan struct{})
	defer close(end)
	rs, err := routes([]policy.Channel{c}, tg)
	must(t, err)
	r := rs[0].viaSender(tg, senderOf(t, func(io.Reader, io.Writer) { <-end }))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Send(ctx, item()); !errors.Is(err, ErrTimeout) || !maySent(err) {
		t.Error(err)
	}
	none := rs[0].viaSender(tg, func(context.Context) (SenderConn, error) { return nil, syscall.ECONNREFUSED })
	if err := none.Send(t.Context(), item()); !errors.Is(err, ErrSender) || maySent(err) {
		t.Errorf("no sender: %v", err)
	}
}

// The whole way: the files that only root may read go along, those of other channels
// do not, and the sender needs nothing of the machine.
func TestSenderDelivers(t *testing.T) {
	p := newPanel(t)
	config := p.ca.tls(t, serverName, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} })
	config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	config.ClientCAs.AddCert(p.ca.cert)
	p.start(config)
	cert, key := p.ca.issue(t, "client", nil)
	targettest.Put(t, p.tg, "/etc/c.pem", cert, 0o600)
	targettest.Put(t, p.tg, "/etc/k.pem", key, 0o600)
	m := newMachine(t, policy.RequireAny)
	m.tg, m.box = p.tg, OpenOutbox(p.tg)
	m.e.Jitter = "0s"
	m.e.Channels = []policy.Channel{
		{
			Type: policy.ChannelHTTP, URL: "https://" + p.srv.Listener.Addr().String() + "/secretpath/{id}", CAFile: caFile, ClientCert: "/etc/c.pem", ClientKey: "/etc/k.pem",
			Headers: map[string]string{"X-Token": "secretheader"}, HMACKey: "secretkey",
		},
		{Type: policy.ChannelHTTP, URL: "https://other.example/othersecret", User: "bob"},
	}
	ready(t, m.box, aliceID, "alice")
	var seen []byte
	o := m.options()
	o.routes = nil
	o.now = time.Now
	o.Sender = senderOf(t, func(r io.Reader, w io.Writer) {
		data, err := io.ReadAll(r)
		seen = data
		if err != nil {
			return
		}
		if err := Serve(context.Background(), strings.NewReader(string(data)), w); err != nil {
			fmt.Fprint(w, err)
		}
	})
	sum, err := Run(t.Context(), p.tg, &m.e, o)
	if err != nil || sum.Delivered != 1 {
		t.Fatalf("%+v, %v\n%s", sum, err, m.log.String())
	}
	got := p.requests()
	sealed, err := m.box.Envelope(aliceID)
	must(t, err)
	if len(got) != 1 || string(got[0].body) != string(sealed) || got[0].header.Get("X-Token") != "secretheader" || got[0].header.Get("X-Signature") == "" {
		t.Errorf("%+v", got)
	}
	if strings.Contains(string(seen), "othersecret") {
		t.Error("the sender gets settings of another channel")
	}
}

// Serve does for its caller what a network channel does, and nothing more.
func TestServeRefuses(t *testing.T) {
	good := func() sendRequest {
		c := policy.Channel{Type: policy.ChannelHTTP}
		return sendRequest{Channel: c, URL: "https://127.0.0.1:1/", Item: item(), Time: time.Minute}
	}
	text := func(q sendRequest) string {
		b, err := json.Marshal(q)
		must(t, err)
		return string(b)
	}
	var out strings.Builder
	must(t, Serve(t.Context(), strings.NewReader(text(good())), &out))
	if err := parseReply([]byte(out.String())); err == nil || maySent(err) {
		t.Fatalf("a good request: %q", out.String())
	}
	for name, change := range map[string]func(*sendRequest){
		"file":           func(q *sendRequest) { q.Channel.Type = policy.ChannelFile },
		"console":        func(q *sendRequest) { q.Channel = policy.Channel{Type: policy.ChannelConsole, Device: "/dev/ttyS0"} },
		"virtio":         func(q *sendRequest) { q.Channel.Type = policy.ChannelVirtio },
		"unknown":        func(q *sendRequest) { q.Channel.Type = "smtp" },
		"plain HTTP":     func(q *sendRequest) { q.URL = "http://127.0.0.1:1/" },
		"look":           func(q *sendRequest) { q.Look = true },
		"environment":    func(q *sendRequest) { q.Env = map[string]string{"LD_PRELOAD": "/tmp/x"} },
		"user":           func(q *sendRequest) { q.Item.User = "../alice" },
		"envelope of no": func(q *sendRequest) { q.Item.ID = "../../x" },
	} {
		q := good()
		change(&q)
		var out strings.Builder
		if err := Serve(t.Context(), strings.NewReader(text(q)), &out); err == nil || out.Len() > 0 {
			t.Errorf("%s: %v, %q", name, err, out.String())
		}
	}
	for name, in := range map[string]string{
		"nothing":       "",
		"half":          text(good())[:100],
		"two":           text(good()) + "{}",
		"another field": `{"uid":0,` + text(good())[1:],
		"too large":     strings.Repeat(" ", maxRequest) + text(good()),
	} {
		if err := Serve(t.Context(), strings.NewReader(in), io.Discard); !errors.Is(err, errSendRequest) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A file that the request does not carry is not read from this machine.
	q := good()
	q.Channel.CAFile = target.Passwd
	out.Reset()
	must(t, Serve(t.Context(), strings.NewReader(text(q)), &out))
	if err := parseReply([]byte(out.String())); err == nil || !strings.Contains(err.Error(), "ca_file") {
		t.Errorf("a file of this machine: %v", err)
	}
}
