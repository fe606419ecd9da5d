// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/receive"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// fakePort behaves as the kernel's virtio_console driver does for a port that
// was opened without blocking: while nobody listens at the host's end, reading
// returns nothing at once, and writing waits.
type fakePort struct {
	mu        sync.Mutex
	connected bool
	stopped   bool   // the host does not read
	in, out   []byte // to the guest, from the guest
	room      int    // bytes that still fit in the queue, if not negative
	rd, wr    time.Time
	closed    bool
	onFrame   func(p *fakePort, payload []byte) // called once the queue has a whole frame
}

func (p *fakePort) Read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		n, connected, late := copy(b, p.in), p.connected, past(p.rd)
		p.in = p.in[n:]
		p.mu.Unlock()
		switch {
		case n > 0:
			return n, nil
		case !connected:
			return 0, io.EOF
		case late:
			return 0, os.ErrDeadlineExceeded
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *fakePort) Write(b []byte) (int, error) {
	done := 0
	for {
		p.mu.Lock()
		if p.connected && !p.stopped {
			n := len(b) - done
			if p.room >= 0 {
				n = min(n, p.room)
				p.room -= n
			}
			p.out = append(p.out, b[done:done+n]...)
			done += n
		}
		late := past(p.wr)
		if done == len(b) && p.onFrame != nil {
			_, payload, _ := bytes.Cut(p.out[1:], []byte("\n"))
			p.onFrame(p, payload)
		}
		p.mu.Unlock()
		switch {
		case done == len(b):
			return done, nil
		case late:
			return done, os.ErrDeadlineExceeded
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *fakePort) Close() error { p.closed = true; return nil }

func (p *fakePort) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rd = t
	return nil
}

func (p *fakePort) SetDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rd, p.wr = t, t
	return nil
}

func past(t time.Time) bool { return !t.IsZero() && time.Now().After(t) }

// newVirtio returns the channel of a machine that has the port as vport2p1.
func newVirtio(t testing.TB, port string, open openFunc) *virtio {
	tg, _ := targettest.New(t)
	// As the kernel does it: the entries of a class are links.
	dev := "/sys/devices/pci0000:00/0000:00:04.0/virtio2/virtio-ports/"
	targettest.Put(t, tg, dev+"vport2p1/name", port+"\n", 0o444)
	targettest.Put(t, tg, dev+"vport2p2/name", "org.qemu.guest_agent.0\n", 0o444)
	targettest.Put(t, tg, dev+"vport2p3/dev", "1:2\n", 0o444) // a port without name
	targettest.Put(t, tg, target.VirtioPorts+"/x", "", 0o444)
	for _, p := range []string{"vport2p2", "vport2p1", "vport2p3"} {
		must(t, os.Symlink("../.."+strings.TrimPrefix(dev, "/sys")+p, filepath.Join(tg.Root(), target.VirtioPorts, p)))
	}
	return &virtio{port: policy.DefaultPort, t: tg, open: open, grace: 50 * time.Millisecond}
}

func item() Item { return Item{Meta: meta(aliceID, "alice"), Sealed: sealed(3000)} }

func send(t *testing.T, c Channel, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	start := time.Now()
	err := c.Send(ctx, item())
	if over := time.Since(start) - d; over > 30*time.Second {
		t.Errorf("%v beyond the deadline", over)
	}
	return err
}

func (p *fakePort) open(t *testing.T) openFunc {
	return func(name string, flag int) (device, error) {
		if name != "/dev/vport2p1" || flag != os.O_RDWR {
			t.Errorf("opened %q, %#x", name, flag)
		}
		return p, nil
	}
}

func ok(p *fakePort, payload []byte) { p.in = append(p.in, frame.OK(payload)...) }

func TestVirtio(t *testing.T) {
	p := &fakePort{connected: true, room: -1, onFrame: ok}
	v := newVirtio(t, policy.DefaultPort, p.open(t))
	must(t, send(t, v, time.Minute))
	if !p.closed {
		t.Error("the port was left open")
	}
	payload, err := armored(item())
	must(t, err)
	want, err := frame.Marshal(aliceID, "alice", payload)
	must(t, err)
	if !bytes.Equal(p.out, want) {
		t.Errorf("sent %.200q", p.out)
	}
}

func TestVirtioFaults(t *testing.T) {
	const short = 2 * time.Second // a loaded machine needs a while to come to the fault itself
	answers := func(s string) func(*fakePort, []byte) {
		return func(p *fakePort, _ []byte) { p.in = append(p.in, s...) }
	}
	for _, tt := range []struct {
		name string
		port *fakePort
		d    time.Duration
		want error
	}{
		{"host absent", &fakePort{room: -1}, time.Minute, ErrNoHost},
		{"host never reads", &fakePort{connected: true, stopped: true, room: -1}, short, errNotTaken},
		{"host stops reading in the middle", &fakePort{connected: true, room: 1000}, short, errNotTaken},
		{"host never answers", &fakePort{connected: true, room: -1}, short, errNoAnswer},
		{"host goes away", &fakePort{connected: true, room: -1, onFrame: func(p *fakePort, _ []byte) { p.connected = false }}, time.Minute, errWentAway},
		{"host goes away within the answer", &fakePort{connected: true, room: -1, onFrame: func(p *fakePort, b []byte) {
			p.in = []byte(frame.OK(b)[:40])
			p.connected = false
		}}, time.Minute, errWentAway},
		{"refusal", &fakePort{connected: true, room: -1, onFrame: answers(frame.Err(frame.WordExists))}, time.Minute, frame.ErrRefused},
		{"garbage", &fakePort{connected: true, room: -1, onFrame: answers("login: \n")}, time.Minute, frame.ErrAnswer},
		{"garbage without end", &fakePort{connected: true, room: -1, onFrame: answers(strings.Repeat("x", 5000))}, time.Minute, frame.ErrAnswer},
		{"another hash", &fakePort{connected: true, room: -1, onFrame: answers(frame.OK([]byte("x")))}, short, ErrHash},
		{"stale input without end", &fakePort{connected: true, room: -1, in: bytes.Repeat([]byte("x\n"), maxStale)}, time.Minute, frame.ErrAnswer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v := newVirtio(t, policy.DefaultPort, tt.port.open(t))
			if err := send(t, v, tt.d); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if !tt.port.closed {
				t.Error("the port was left open")
			}
		})
	}
}

// Answers to earlier attempts arrive late: before the frame, or after it.
func TestVirtioStale(t *testing.T) {
	p := &fakePort{connected: true, room: -1, in: []byte("noise\nERR timeout\nOK"), onFrame: func(p *fakePort, b []byte) {
		p.in = append(p.in, frame.OK([]byte("an earlier one"))...)
		ok(p, b)
	}}
	must(t, send(t, newVirtio(t, policy.DefaultPort, p.open(t)), time.Minute))
}

// A receiver that connects while the port is open already is waited for.
func TestVirtioHostConnects(t *testing.T) {
	p := &fakePort{room: -1, onFrame: ok}
	v := newVirtio(t, policy.DefaultPort, p.open(t))
	v.grace = 10 * time.Second
	time.AfterFunc(100*time.Millisecond, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.connected = true
	})
	must(t, send(t, v, time.Minute))
}

func TestVirtioCanceled(t *testing.T) {
	for name, p := range map[string]*fakePort{
		"absent":     {room: -1},
		"no reading": {connected: true, stopped: true, room: -1},
		"no answer":  {connected: true, room: -1},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVirtio(t, policy.DefaultPort, p.open(t))
			v.grace = time.Hour
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(200*time.Millisecond, cancel)
			end := make(chan error, 1)
			go func() { end <- v.Send(ctx, item()) }()
			select {
			case err := <-end:
				if err == nil {
					t.Error("no error")
				}
			case <-time.After(time.Minute):
				t.Error("does not end")
			}
		})
	}
}

func TestVirtioPort(t *testing.T) {
	never := func(string, int) (device, error) { t.Error("opened a port"); return nil, fs.ErrInvalid }
	for _, other := range []string{"org.totp.enroll.00", "org.totp.enroll.", "org.totp.enroll.0 "} {
		if err := send(t, newVirtio(t, other, never), time.Minute); !errors.Is(err, ErrNoPort) {
			t.Errorf("port %q: %v", other, err)
		}
	}
	tg, _ := targettest.New(t)
	if err := send(t, &virtio{port: "x", t: tg, open: never}, time.Minute); !errors.Is(err, ErrNoPort) {
		t.Errorf("no virtio-serial at all: %v", err)
	}
	busy := func(string, int) (device, error) {
		return nil, &fs.PathError{Op: "open", Path: "/dev/vport2p1", Err: syscall.EBUSY}
	}
	if err := send(t, newVirtio(t, policy.DefaultPort, busy), time.Minute); !errors.Is(err, ErrPortBusy) {
		t.Errorf("busy: %v", err)
	}
	gone := func(string, int) (device, error) {
		return nil, &fs.PathError{Op: "open", Path: "/dev/vport2p1", Err: syscall.ENODEV}
	}
	if err := send(t, newVirtio(t, policy.DefaultPort, gone), time.Minute); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("gone: %v", err)
	}
}

// The channel and the receiver, over a socket in place of the hypervisor.
func TestVirtioReceive(t *testing.T) {
	dir := t.TempDir()
	socket, in := filepath.Join(dir, "s"), filepath.Join(dir, "in")
	end := make(chan error, 1)
	go func() {
		end <- receive.Run(t.Context(), receive.Options{Socket: socket, Listen: true, Dir: in, Once: 1})
	}()
	open := func(string, int) (device, error) {
		var err error
		for range 12000 {
			var c net.Conn
			if c, err = net.Dial("unix", socket); err == nil {
				return c, nil
			}
			time.Sleep(5 * time.Millisecond)
		}
		return nil, err
	}
	i := item()
	i.Sealed = realEnvelope(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, newVirtio(t, policy.DefaultPort, open).Send(ctx, i))
	must(t, <-end)
	got, err := os.ReadFile(filepath.Join(in, "alice-"+aliceID+".age"))
	must(t, err)
	want, err := armored(i)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("received something else")
	}
}

func TestVirtioName(t *testing.T) {
	for port, want := range map[string]string{"": "virtio", policy.DefaultPort: "virtio", "org.example.0": "virtio:org.example.0"} {
		c := drivers[policy.ChannelVirtio].New(policy.Channel{Type: policy.ChannelVirtio, Port: port}, nil)
		if got := c.Name(); got != want {
			t.Errorf("port %q: %q, want %q", port, got, want)
		}
	}
}
