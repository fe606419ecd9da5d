// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package deliver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// The agent is killed in a process of its own, which is this test binary again
// with the variable.
const childWire = "TEST_DELIVER_WIRE"

// A child is what that process is told.
type child struct {
	Root string
	Wire deliver.Wire
}

func TestMain(m *testing.M) {
	if text := os.Getenv(childWire); text != "" {
		os.Exit(passOf(text))
	}
	os.Exit(m.Run())
}

func passOf(text string) int {
	var c child
	err := json.Unmarshal([]byte(text), &c)
	if err == nil {
		var t *target.Target
		if t, err = target.Open(c.Root); err == nil {
			_, err = pass(context.Background(), t, c.Wire)
		}
	}
	fmt.Fprintln(os.Stderr, "not killed:", err)
	return 1
}

func pass(ctx context.Context, t *target.Target, w deliver.Wire) (deliver.Summary, error) {
	p, _, err := enroll.LoadPolicy(t)
	if err != nil {
		return deliver.Summary{}, err
	}
	return deliver.RunWired(ctx, t, p, w, deliver.Options{})
}

// A scene is a machine with one user enrolled, one channel, and what the channel
// leads to.
type scene struct {
	*testing.T
	tg    *target.Target
	typ   string
	wire  deliver.Wire
	end   *end
	state []byte // the user's PAM state file
	id    string
	sent  []byte // the envelope
	small []byte // the card's compact form, sealed

	panel *deliver.Panel // http
	nova  *deliver.Nova  // openstack
	host  *host          // virtio and console
}

// An end is the other end of a channel, as a test has it.
type end struct {
	policy string                 // the channel's fields
	start  func(*scene)           // makes the wire lead to an end that works
	got    func(*scene) [][]byte  // the envelopes that have arrived whole, binary
	half   func(envelope int) int // how much is written of such an envelope at half

	compact bool // what arrives is the compact form
}

const (
	user      = "alice"
	recipient = "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm"
	patience  = time.Minute            // of channels that work, on a busy machine too
	short     = 200 * time.Millisecond // of those that hang, wherever they do
	settled   = 2 * time.Second        // of those that hang once a port has been drained
)

func newScene(t *testing.T, typ string) *scene {
	t.Helper()
	s := &scene{T: t, typ: typ, end: ends[typ], wire: deliver.Wire{Deadline: patience}}
	s.tg = s.machine()
	for name, text := range map[string]string{
		target.Passwd:       "root:x:0:0:root:/root:/bin/bash\n" + user + ":x:1000:1000::/home/alice:/bin/bash\n",
		target.HostnameFile: "web-1\n",
		target.MachineID:    "0123456789abcdef0123456789abcdef\n",
		target.ImagePolicy: "version: 1\nusers: [{name: " + user + ", recipients: [" + recipient + "]}]\njitter: 0s\n" +
			"channels: [{type: " + typ + s.end.policy + "}]\n",
	} {
		targettest.Put(t, s.tg, name, text, 0o600)
	}
	s.boot()
	s.state = s.read(target.PAMStateDir + "/" + user)
	box := deliver.OpenOutbox(s.tg)
	ready, err := box.Ready()
	if err != nil || len(ready) != 1 {
		t.Fatalf("ready %v, %v", ready, err)
	}
	s.id = ready[0].ID
	if s.sent, err = box.Envelope(s.id); err != nil {
		t.Fatal(err)
	}
	if s.small, err = box.Compact(s.id); err != nil {
		t.Fatal(err)
	}
	s.end.start(s)
	return s
}

// machine is a folder in memory if that is possible: what is synced here is
// another test's concern.
func (s *scene) machine() *target.Target {
	s.Helper()
	dir := s.TempDir()
	if os.Geteuid() == 0 && syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m") == nil {
		s.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	} else if os.Getenv("CI") == "true" {
		s.Fatal("no disk can be made that is small enough to be filled")
	}
	tg, err := target.Open(dir)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { tg.Close() })
	return tg
}

func (s *scene) read(name string) []byte {
	s.Helper()
	b, err := s.tg.ReadFile(name)
	if err != nil {
		s.Fatal(err)
	}
	return b
}

// boot runs what a boot runs before delivery.
func (s *scene) boot() {
	s.Helper()
	if _, err := enroll.Run(context.Background(), s.tg, enroll.Options{Agent: "test"}); err != nil {
		s.Fatal(err)
	}
}

// fails makes a pass while the fault lasts, which the record of the attempt calls
// by its name.
func (s *scene) fails(says error) {
	s.Helper()
	start := time.Now()
	sum, err := pass(s.Context(), s.tg, s.wire)
	if sum.Sent != 0 || sum.Delivered+sum.Offered+sum.Unconfirmed != 0 || sum.Pending != 1 || err == nil && sum.Failed != 1 {
		s.Errorf("%+v, %v; want one envelope pending", sum, err)
	}
	if took := time.Since(start); took > patience/2 {
		s.Errorf("the pass took %v", took)
	}
	receipt, err := deliver.OpenOutbox(s.tg).Receipts(s.id)
	if err != nil {
		s.Error(err)
	}
	for name, a := range receipt.Channels {
		if says == nil || !strings.Contains(a.Error, strings.Split(says.Error(), ";")[0]) {
			s.Errorf("%s: %q, want %v", name, a.Error, says)
		}
		if strings.Contains(a.Error, "secret") || strings.Contains(a.Error, s.id) {
			s.Errorf("%s: %q gives a secret away", name, a.Error)
		}
	}
	if says != nil && len(receipt.Channels) != 1 {
		s.Errorf("recorded %+v", receipt)
	}
	s.stands()
}

// killed makes the pass in a process that is killed. Where the attempt cannot be
// recorded it never comes that far.
func (s *scene) killed(step string, never bool) {
	s.Helper()
	w := s.wire
	w.KillAt, w.Half = step, s.end.halfOf(len(s.sent))
	if w.Deadline < patience {
		w.Deadline = short
	}
	text, err := json.Marshal(child{s.tg.Root(), w})
	if err != nil {
		s.Fatal(err)
	}
	cmd := exec.CommandContext(s.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childWire+"="+string(text))
	out, err := cmd.CombinedOutput()
	exit, _ := errors.AsType[*exec.ExitError](err)
	if exit == nil || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL != never {
		s.Fatalf("the process was not killed when %s: %v\n%s", step, err, out)
	}
	s.stands()
}

func (e *end) halfOf(n int) int {
	if e.half == nil {
		return 0
	}
	return e.half(n)
}

// stands: envelope and enrollment are as they were, also after another boot.
func (s *scene) stands() {
	s.Helper()
	for _, when := range []string{"after it", "after the next boot"} {
		entries, err := s.tg.ReadDir(target.PAMStateDir)
		if err != nil || len(entries) != 1 || entries[0].Name() != user || !bytes.Equal(s.read(target.PAMStateDir+"/"+user), s.state) {
			s.Fatalf("%s: another enrollment is live: %v, %v", when, entries, err)
		}
		staged, ready, err := deliver.OpenOutbox(s.tg).IDs()
		if err != nil || len(staged) != 0 || len(ready) != 1 || !ready[s.id] {
			s.Fatalf("%s: staged %v, ready %v, %v; want %s ready", when, staged, ready, err, s.id)
		}
		if got, err := deliver.OpenOutbox(s.tg).Envelope(s.id); err != nil || !bytes.Equal(got, s.sent) {
			s.Fatalf("%s: the envelope is another: %v", when, err)
		}
		if !s.full() {
			s.boot()
		}
	}
}

// over ends the fault: the end works, the disk has room, and the pause is over.
func (s *scene) over() {
	s.Helper()
	s.emptyDisk()
	s.wire = deliver.Wire{Deadline: patience, Clock: 3 * time.Hour}
	s.end.start(s)
}

// arrives makes a pass that succeeds.
func (s *scene) arrives() {
	s.Helper()
	sum, err := pass(s.Context(), s.tg, s.wire)
	if err != nil || sum.Delivered+sum.Offered != 1 || sum.Pending != 0 {
		receipt, _ := deliver.OpenOutbox(s.tg).Receipts(s.id)
		s.Fatalf("%+v, %v: %+v", sum, err, receipt)
	}
	got, want := s.end.got(s), s.sent
	if s.end.compact {
		want = s.small
	}
	if len(got) == 0 || len(want) == 0 || !bytes.Equal(got[len(got)-1], want) {
		s.Errorf("%d envelopes arrived, the last one another", len(got))
	}
	s.stands()
	// And that is the end of it.
	s.wire.Clock += 24 * time.Hour
	if sum, err := pass(s.Context(), s.tg, s.wire); err != nil || sum.Sent+sum.Failed != 0 {
		s.Errorf("and again: %+v, %v", sum, err)
	}
}

func (s *scene) filler() string { return filepath.Join(s.tg.Root(), "filler") }

func (s *scene) full() bool {
	_, err := os.Stat(s.filler())
	return err == nil
}

// fillDisk leaves no byte on the machine's disk.
func (s *scene) fillDisk() {
	s.Helper()
	if os.Geteuid() != 0 {
		s.Skip("needs root, for a disk that can be filled")
	}
	if err := s.fill(); err != nil {
		s.Fatal(err)
	}
}

// fill may be called by an end, while the machine is at work.
func (s *scene) fill() error {
	f, err := os.OpenFile(s.filler(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 64 << 10; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return nil
}

func (s *scene) emptyDisk() {
	if err := os.Remove(s.filler()); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.Fatal(err)
	}
}

// fillDiskOfChannel leaves room for a record, and not for the channel's own file.
func (s *scene) fillDiskOfChannel() {
	s.Helper()
	s.fillDisk()
	info, err := os.Stat(s.filler())
	if err != nil {
		s.Fatal(err)
	}
	// A record and its temporary file are a page each, and a directory none.
	if err := os.Truncate(s.filler(), info.Size()-2*4096); err != nil {
		s.Fatal(err)
	}
}

// closedPort is an address where nobody listens, nor comes to: it is taken.
func (s *scene) closedPort() string {
	s.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		s.Fatal(err)
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		s.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", addr.(*syscall.SockaddrInet4).Port)
}

// A host listens on a Unix socket, in place of a device, and does with each
// connection what it is told.
type host struct {
	mu   sync.Mutex
	got  [][]byte // what was read of each connection
	done sync.WaitGroup
}

func (s *scene) listen(serve func(*host, net.Conn)) {
	s.Helper()
	// The name of a socket must be short.
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		s.Fatal(err)
	}
	h := &host{}
	s.host = h
	var conns []net.Conn
	s.Cleanup(func() {
		l.Close()
		h.mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		h.mu.Unlock()
		h.done.Wait()
	})
	h.done.Add(1)
	go func() {
		defer h.done.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.mu.Lock()
			conns = append(conns, c)
			h.mu.Unlock()
			h.done.Add(1)
			go func() {
				defer h.done.Done()
				defer c.Close()
				serve(h, c)
			}()
		}
	}()
	s.wire.Addr = l.Addr().String()
}

// keep notes what a connection has brought.
func (h *host) keep(b []byte) {
	h.mu.Lock()
	h.got = append(h.got, b)
	h.mu.Unlock()
}

func (h *host) all() [][]byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([][]byte(nil), h.got...)
}
