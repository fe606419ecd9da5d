// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package deliver

import (
	"context"
	"crypto/x509"
	"io/fs"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A Wire is what the channels of a pass are connected to in a test, in a form
// that another process can be told.
type Wire struct {
	Addr     string        // of the other end: TCP for a network channel, else a Unix socket
	Fail     string        // what fails instead: see dial and open
	Deadline time.Duration // of each channel
	Clock    time.Duration // by how much the machine's clock is wrong, or how much time has gone by

	KillAt string // the step at which the process kills itself; empty: none
	Half   int    // with the step "half": after so many bytes have been written
}

// RunWired is Run with the channels connected to w.
func RunWired(ctx context.Context, t *target.Target, e *policy.Effective, w Wire, o Options) (Summary, error) {
	_ = OpenOutbox(t).makeKey(e.Channels) // on a full disk there is none
	rs, err := routes(e.Channels, t)
	if err != nil {
		return Summary{}, err
	}
	o.atStep = func(step string) {
		if step == w.KillAt {
			kill()
		}
	}
	now := func() time.Time { return time.Now().Add(w.Clock) }
	for i := range rs {
		rs[i].deadline = w.Deadline
		switch c := rs[i].Channel.(type) {
		case *web:
			c.dial, c.now = w.dial, now
		case *openstack:
			c.dial = w.dial
		case *virtio:
			c.open, c.grace = w.open, 0
		case *tty:
			c.open = w.open
		}
	}
	o.routes, o.now = rs, now
	return Run(ctx, t, e, o)
}

// kill ends the process as nothing else does.
func kill() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (w Wire) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{}
	switch w.Fail {
	case "unreachable":
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
	case "dns":
		// The name servers are those of this machine, and the way to them is cut.
		d.Resolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", w.Addr)
		}}
		return d.DialContext(ctx, network, addr)
	}
	c, err := d.DialContext(ctx, network, w.Addr)
	if err != nil {
		return nil, err
	}
	return w.limit(c), nil
}

// open stands for the kernel's virtio_console and tty drivers.
func (w Wire) open(name string, _ int) (device, error) {
	if w.Fail == "no device" {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EIO}
	}
	c, err := net.Dial("unix", w.Addr)
	if err != nil {
		return nil, err
	}
	// As small as a port's queue, so that a host which does not read is noticed.
	c.(*net.UnixConn).SetWriteBuffer(1)
	if w.Fail == "no host" {
		c.(*net.UnixConn).CloseRead() // reads as the port does while nobody listens
	}
	return w.limit(c), nil
}

func (w Wire) limit(c net.Conn) net.Conn {
	if w.KillAt != "half" {
		return c
	}
	return &limited{Conn: c, left: w.Half}
}

// limited kills the process once so much has been written.
type limited struct {
	net.Conn
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	if len(b) > l.left {
		l.Conn.Write(b[:l.left])
		kill()
	}
	l.left -= len(b)
	return l.Conn.Write(b)
}

// ErrNoPassword is the error of a metadata service that takes nothing.
var ErrNoPassword = errNoPassword

// Panel is the HTTPS server of the other tests.
type Panel = panel

// Errors of the channels that lead to a device.
var (
	ErrNotTaken = errNotTaken
	ErrNoAnswer = errNoAnswer
	ErrWentAway = errWentAway
)

// The names of the server and of its CA's file.
const (
	ServerName = serverName
	CAFile     = caFile
)

// NewPanelAt starts a server whose CA the machine trusts; nil: no machine does.
func NewPanelAt(t testing.TB, tg *target.Target) *Panel {
	return newPanelAt(t, tg)
}

// Restart starts the server anew, with a certificate for that name, empty for its
// own, and for a time that change may change.
func (p *panel) Restart(name string, change func(from, to *time.Time)) {
	if name == "" {
		name = serverName
	}
	p.start(p.ca.tls(p.t, name, func(c *x509.Certificate) {
		if change != nil {
			change(&c.NotBefore, &c.NotAfter)
		}
	}))
}

// Addr is where the server listens.
func (p *panel) Addr() string { return p.srv.Listener.Addr().String() }

// Then says what the server does once it has read a request; nil: 200.
func (p *panel) Then(do http.HandlerFunc) {
	p.mu.Lock()
	p.next, p.first = do, nil
	p.mu.Unlock()
}

// Before says what it does in the place of reading one.
func (p *panel) Before(do http.HandlerFunc) {
	p.mu.Lock()
	p.first = do
	p.mu.Unlock()
}

// Bodies are those of the requests that have arrived.
func (p *panel) Bodies() [][]byte {
	var all [][]byte
	for _, r := range p.requests() {
		all = append(all, r.body)
	}
	return all
}
