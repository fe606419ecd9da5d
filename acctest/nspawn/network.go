// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package nspawn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Addr returns an address of this machine's loopback that leads to port 22 of the
// machine's 127.0.0.1, in every boot. Each connection comes from an address of its own
// in 127.0.0.0/8, so that what sshd counts per source does not end a test of something
// else.
func (m *Machine) Addr() string { return m.sshd.addr() }

// Port returns the port of [Machine.Addr], whose host is 127.0.0.1.
func (m *Machine) Port() int { return m.sshd.listener.Addr().(*net.TCPAddr).Port }

// Forward returns an address of this machine's loopback that leads to a TCP address
// of the machine, such as "[::1]:22", until the machine is closed.
func (m *Machine) Forward(addr string) (string, error) {
	f, err := m.listen(func(ctx context.Context) (net.Conn, error) { return m.Dial(ctx, "tcp", addr) })
	if err != nil {
		return "", err
	}
	m.sshd.mu.Lock()
	defer m.sshd.mu.Unlock()
	m.sshd.more = append(m.sshd.more, f)
	return f.addr(), nil
}

// Dial connects to an address from inside the network namespace of the running
// machine. The host in addr must be an IP address.
func (m *Machine) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return m.dial(ctx, net.Dialer{}, network, addr)
}

// DialFrom connects to an address over TCP as [Machine.Dial] does, from a source
// address that need not be the machine's own: see [Machine.Route].
func (m *Machine) DialFrom(ctx context.Context, source netip.Addr, addr string) (net.Conn, error) {
	return m.dial(ctx, net.Dialer{
		LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(source, 0)),
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) })
			return errors.Join(cerr, err)
		},
	}, "tcp", addr)
}

// Route makes every address of a prefix one of the running machine's own, in its
// network namespace only. Clients can then connect from any of them.
func (m *Machine) Route(ctx context.Context, prefix netip.Prefix) error {
	out, err := m.HostCommand(ctx, "ip", "route", "add", "local", prefix.Masked().String(), "dev", "lo").CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip route add local %s: %w: %s", prefix, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (m *Machine) dial(ctx context.Context, d net.Dialer, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	pid, err := m.PID()
	if err != nil {
		return nil, err
	}
	type result struct {
		conn net.Conn
		err  error
	}
	got := make(chan result, 1)
	go func() {
		// The thread is never unlocked: it ends with this goroutine, and with it the
		// namespace it has changed to. A socket belongs to the namespace of the thread
		// that makes it, which for an IP address is the one that calls Dial.
		runtime.LockOSThread()
		if err := enterNetwork(pid); err != nil {
			got <- result{err: err}
			return
		}
		conn, err := d.DialContext(ctx, network, addr)
		got <- result{conn, err}
	}()
	r := <-got
	return r.conn, r.err
}

func enterNetwork(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// forward listens on this machine's loopback for a machine.
type forward struct {
	listener net.Listener
	cancel   context.CancelFunc
	conns    sync.WaitGroup

	mu   sync.Mutex
	more []*forward // that end with this one
}

// listenForSSH makes the forward of [Machine.Addr].
func (m *Machine) listenForSSH() (*forward, error) {
	var connections atomic.Uint32
	return m.listen(func(ctx context.Context) (net.Conn, error) {
		n := connections.Add(1)
		return m.DialFrom(ctx, netip.AddrFrom4([4]byte{127, byte(1 + n>>16%254), byte(n >> 8), byte(n)}), "127.0.0.1:22")
	})
}

func (m *Machine) listen(dial func(context.Context) (net.Conn, error)) (*forward, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &forward{listener: l, cancel: cancel}
	f.conns.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.conns.Go(func() { pass(ctx, conn.(*net.TCPConn), dial) })
		}
	})
	return f, nil
}

// pass carries one connection. It closes it at once if the machine does not answer.
func pass(ctx context.Context, near *net.TCPConn, dial func(context.Context) (net.Conn, error)) {
	defer near.Close()
	conn, err := dial(ctx)
	if err != nil {
		return
	}
	far := conn.(*net.TCPConn)
	defer far.Close()
	defer context.AfterFunc(ctx, func() { _ = near.Close(); _ = far.Close() })()
	var both sync.WaitGroup
	copyTo := func(to, from *net.TCPConn) {
		if _, err := io.Copy(to, from); err != nil {
			_ = to.Close() // a reset must not look like an end of file
			return
		}
		_ = to.CloseWrite()
	}
	both.Go(func() { copyTo(near, far) })
	both.Go(func() { copyTo(far, near) })
	both.Wait()
}

func (f *forward) addr() string { return f.listener.Addr().String() }

func (f *forward) close() error {
	f.mu.Lock()
	more := f.more
	f.more = nil
	f.mu.Unlock()
	var errs []error
	for _, other := range more {
		errs = append(errs, other.close())
	}
	if err := f.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	f.cancel()
	f.conns.Wait()
	return errors.Join(errs...)
}
