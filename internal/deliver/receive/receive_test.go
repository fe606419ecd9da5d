// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

const (
	aliceID = "abcdefgh234567ijklmnopqrsu"
	bobID   = "zyxwvuts765432rqponmlkjihg"
)

// envelope returns an armored age file of n bytes of plaintext.
func envelope(t testing.TB, n int) []byte {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	a := armor.NewWriter(&b)
	w, err := age.Encrypt(a, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	w.Write(make([]byte, n))
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func message(t testing.TB, id, user string, payload []byte) []byte {
	t.Helper()
	b, err := frame.Marshal(id, user, payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// host is a receiver under test.
type host struct {
	Options
	t   testing.TB
	log *syncBuffer
	end chan error
}

// start runs a receiver that listens, in the background.
func start(t testing.TB, change func(*Options)) *host {
	t.Helper()
	dir := t.TempDir()
	log := &syncBuffer{}
	h := &host{t: t, log: log, end: make(chan error, 1), Options: Options{
		Socket: filepath.Join(dir, "s"),
		Dir:    filepath.Join(dir, "in"),
		Listen: true,
		Log:    log,
	}}
	if change != nil {
		change(&h.Options)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { h.end <- Run(ctx, h.Options) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-h.end:
		case <-time.After(time.Minute):
			t.Error("the receiver does not end")
		}
	})
	if h.Listen {
		h.wait(func() bool {
			fi, err := os.Stat(h.Socket)
			return err == nil && fi.Mode().Perm() == 0o600
		})
	}
	return h
}

func (h *host) wait(until func() bool) {
	h.t.Helper()
	for range 12000 {
		if until() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	h.t.Fatalf("waited in vain; log:\n%s", h.log)
}

// finish waits for the receiver to end by itself.
func (h *host) finish() {
	h.t.Helper()
	select {
	case err := <-h.end:
		h.end <- err
		if err != nil {
			h.t.Fatal(err)
		}
	case <-time.After(time.Minute):
		h.t.Fatal("the receiver does not end")
	}
}

func (h *host) stored(name string) []byte {
	h.t.Helper()
	b, err := os.ReadFile(filepath.Join(h.Dir, name))
	if err != nil {
		h.t.Fatal(err)
	}
	fi, err := os.Stat(filepath.Join(h.Dir, name))
	if err != nil {
		h.t.Fatal(err)
	}
	if runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
		h.t.Errorf("mode %v", fi.Mode())
	}
	return b
}

func (h *host) files() []string {
	h.t.Helper()
	entries, err := os.ReadDir(h.Dir)
	if err != nil {
		h.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// guest is a connection as a virtual machine's port has it.
type guest struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func (h *host) dial() *guest {
	h.t.Helper()
	c, err := net.Dial("unix", h.Socket)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	return &guest{c, h.t, bufio.NewReader(c)}
}

func (g *guest) send(b []byte) {
	g.t.Helper()
	g.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := g.Write(b); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) expect(want string) {
	g.t.Helper()
	g.SetReadDeadline(time.Now().Add(time.Minute))
	got, err := g.r.ReadString('\n')
	if got != want {
		g.t.Fatalf("answer %q (%v), want %q", got, err, want)
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestReceive(t *testing.T) {
	h := start(t, nil)
	g := h.dial()
	alice, bob := envelope(t, 1000), envelope(t, 3000)

	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
	if got := h.stored("alice-" + aliceID + ".age"); !bytes.Equal(got, alice) {
		t.Error("stored something else")
	}
	if fi, err := os.Stat(h.Dir); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", fi.Mode(), err)
	}

	// On the same connection, and on another one at the same time.
	g.send(message(t, bobID, "bob", bob))
	g.expect(frame.OK(bob))
	g2 := h.dial()
	again := envelope(t, 10)
	g2.send(message(t, aliceID, "carol", again))
	g2.expect(frame.OK(again))

	// The same once more, and another one of the same name.
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
	g2.send(message(t, aliceID, "alice", bob))
	g2.expect(frame.Err(frame.WordExists))
	if got := h.stored("alice-" + aliceID + ".age"); !bytes.Equal(got, alice) {
		t.Error("overwritten")
	}

	want := []string{"alice-" + aliceID + ".age", "bob-" + bobID + ".age", "carol-" + aliceID + ".age"}
	if got := h.files(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("files %q, want %q", got, want)
	}
	if n := strings.Count(h.log.String(), "stored"); n != 3 {
		t.Errorf("%d envelopes logged:\n%s", n, h.log)
	}
}

func TestOnce(t *testing.T) {
	h := start(t, func(o *Options) { o.Once = 2 })
	g := h.dial()
	alice, bob := envelope(t, 1000), envelope(t, 1000)
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
	g.send(message(t, aliceID, "alice", alice)) // the same does not count twice
	g.expect(frame.OK(alice))
	g.send(message(t, bobID, "bob", bob))
	g.expect(frame.OK(bob))
	g.Close()
	h.finish()
	if _, err := os.Lstat(h.Socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// The last answer arrives even if the other side reads it late.
func TestOnceLingers(t *testing.T) {
	h := start(t, func(o *Options) { o.Once = 1 })
	g := h.dial()
	alice := envelope(t, 1000)
	g.send(message(t, aliceID, "alice", alice))
	h.wait(func() bool { return strings.Contains(h.log.String(), "stored") })
	g.expect(frame.OK(alice))
	g.Close()
	h.finish()
}

func TestCanceled(t *testing.T) {
	for _, listen := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		dir := t.TempDir()
		err := Run(ctx, Options{Socket: filepath.Join(dir, "s"), Dir: dir, Listen: listen})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("listen %v: %v", listen, err)
		}
	}
}

// What a peer can do wrong, and the next envelope on the same connection.
func TestRefused(t *testing.T) {
	alice := envelope(t, 1000)
	text := string(alice)
	head := func(id, user string, n int) string {
		return fmt.Sprintf("TOTP-ENVELOPE 1 %s %s %d\n", id, user, n)
	}
	const other = "-----BEGIN AGE ENCRYPTED FILE-----\naGVsbG8gd29ybGQ=\n-----END AGE ENCRYPTED FILE-----\n"
	long := strings.Repeat("A", frame.MaxLine+100) + "\n"
	noise := bytes.Repeat([]byte("noise \xff\x00\n"), 5000)
	for _, tt := range []struct {
		name, send string
		want       frame.Word // none if nothing is answered
	}{
		{"nothing", "", ""},
		{"empty lines", "\n\r\n\n", ""},
		{"noise", string(noise), ""},
		{"long line", long, ""},
		{"header cut short", "TOTP-ENVELOPE 1 x", frame.WordFormat},
		{"an armored file without header", text, ""},
		{"version", "TOTP-ENVELOPE 2 " + aliceID + " alice 10\n", frame.WordFormat},
		{"fields", "TOTP-ENVELOPE 1 " + aliceID + " alice\n", frame.WordFormat},
		{"more fields", "TOTP-ENVELOPE 1 " + aliceID + " alice 10 10\n", frame.WordFormat},
		{"length is no number", "TOTP-ENVELOPE 1 " + aliceID + " alice 0x10\n", frame.WordFormat},
		{"id", head("../../../../../etc/passwd0", "alice", 10), frame.WordName},
		{"user", head(aliceID, "../alice", 10), frame.WordName},
		{"user with slash", head(aliceID, "a/b", 10), frame.WordName},
		{"zero", head(aliceID, "alice", 0), frame.WordSize},
		{"oversized", head(aliceID, "alice", frame.MaxPayload+1) + text, frame.WordSize},
		{"gigantic", head(aliceID, "alice", 1<<62) + text, frame.WordSize},
		{"beyond integers", "TOTP-ENVELOPE 1 " + aliceID + " alice 99999999999999999999\n", frame.WordSize},
		{"too short a length", head(aliceID, "alice", len(text)-1) + text, frame.WordLength},
		{"too long a length", head(aliceID, "alice", len(text)+10) + text, frame.WordLength},
		{"beyond the length", head(aliceID, "alice", 12) + "QUJD\nQUJD\nQUJD\nQUJD\n", frame.WordLength},
		{"no age file", head(aliceID, "alice", 6) + "hello\n", frame.WordAge},
		{"damaged armor", head(aliceID, "alice", len(text)) + strings.Replace(text, "A", "*", 1), frame.WordAge},
		{"armor of something else", head(aliceID, "alice", len(other)) + other, frame.WordAge},
		{"long line inside", head(aliceID, "alice", len(text)) + text[:100] + long, frame.WordFormat},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := start(t, nil)
			g := h.dial()
			g.send([]byte(tt.send))
			g.send(message(t, bobID, "bob", alice))
			if tt.want != "" {
				g.expect(frame.Err(tt.want))
			}
			g.expect(frame.OK(alice))
			if got := h.files(); len(got) != 1 || got[0] != "bob-"+bobID+".age" {
				t.Errorf("files %q", got)
			}
		})
	}
}

// cuts are the quarters of a message, and places in its header.
func cuts(msg []byte) []int {
	return []int{1, 10, len("\nTOTP-ENVELOPE 1 ") + len(aliceID) + 12, len(msg) / 4, len(msg) / 2, 3 * len(msg) / 4, len(msg) - 1}
}

func TestCutAndReconnected(t *testing.T) {
	alice := envelope(t, 1000)
	msg := message(t, aliceID, "alice", alice)
	h := start(t, nil)
	for _, at := range cuts(msg) {
		g := h.dial()
		g.send(msg[:at])
		g.Close()
	}
	if got := h.files(); len(got) != 0 {
		t.Errorf("files %q", got)
	}
	g := h.dial()
	g.send(msg)
	g.expect(frame.OK(alice))
	if got := h.files(); len(got) != 1 {
		t.Errorf("files %q", got)
	}
}

// The hypervisor keeps the connection while the guest starts over.
func TestCutAndSentAnew(t *testing.T) {
	alice := envelope(t, 1000)
	msg := message(t, aliceID, "alice", alice)
	for _, at := range cuts(msg) {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			h := start(t, nil)
			g := h.dial()
			g.send(msg[:at])
			g.send(msg)
			g.expect(frame.OK(alice))
		})
	}
}

func TestCutAndSilent(t *testing.T) {
	alice := envelope(t, 1000)
	msg := message(t, aliceID, "alice", alice)
	for _, at := range []int{len(msg) / 4, len(msg) / 2, 3 * len(msg) / 4, len(msg) - 1} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			h := start(t, func(o *Options) { o.frameTime = 50 * time.Millisecond })
			g := h.dial()
			g.send(msg[:at])
			g.expect(frame.Err(frame.WordTimeout))
			g.send(msg)
			g.expect(frame.OK(alice))
		})
	}
}

func TestStoreFails(t *testing.T) {
	var full sync.Mutex
	broken := true
	h := start(t, func(o *Options) {
		o.write = func(f *os.File, data []byte) error {
			full.Lock()
			defer full.Unlock()
			if !broken {
				return writeAll(f, data)
			}
			f.Write(data[:len(data)/2])
			return syscall.ENOSPC
		}
	})
	alice := envelope(t, 1000)
	g := h.dial()
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.Err(frame.WordStore))
	if got := h.files(); len(got) != 0 {
		t.Errorf("left %q", got)
	}
	setBroken := func(b bool) {
		full.Lock()
		defer full.Unlock()
		broken = b
	}
	setBroken(false)
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
	// What is there already can be confirmed on a full disk.
	setBroken(true)
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
}

// Another receiver stores under the same name at the same time.
func TestStoreRace(t *testing.T) {
	alice, other := envelope(t, 1000), envelope(t, 1000)
	for name, tt := range map[string]struct {
		there []byte
		want  string
	}{
		"the same": {alice, frame.OK(alice)},
		"another":  {other, frame.Err(frame.WordExists)},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, func(o *Options) {
				dir := o.Dir
				o.write = func(f *os.File, data []byte) error {
					return errors.Join(writeAll(f, data),
						os.WriteFile(filepath.Join(dir, "alice-"+aliceID+".age"), tt.there, 0o600))
				}
			})
			g := h.dial()
			g.send(message(t, aliceID, "alice", alice))
			g.expect(tt.want)
			if got := h.stored("alice-" + aliceID + ".age"); !bytes.Equal(got, tt.there) {
				t.Error("overwritten")
			}
			if got := h.files(); len(got) != 1 {
				t.Errorf("left %q", got)
			}
		})
	}
}

// A name that is there as something else is never written through.
func TestNameTaken(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for name, take := range map[string]func(string) error{
		"link":      func(p string) error { return os.Symlink(outside, p) },
		"directory": func(p string) error { return os.Mkdir(p, 0o700) },
		"large":     func(p string) error { return os.WriteFile(p, make([]byte, frame.MaxPayload+1), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, nil)
			if err := take(filepath.Join(h.Dir, "alice-"+aliceID+".age")); err != nil {
				t.Skip(err)
			}
			g := h.dial()
			g.send(message(t, aliceID, "alice", envelope(t, 10)))
			g.expect(frame.Err(frame.WordExists))
			if _, err := os.Lstat(outside); !errors.Is(err, fs.ErrNotExist) {
				t.Error("written outside of the directory")
			}
		})
	}
}

// A peer that never reads an answer stops nobody else.
func TestNeverReads(t *testing.T) {
	h := start(t, nil)
	deaf := h.dial()
	go func() {
		bad := bytes.Repeat([]byte("TOTP-ENVELOPE 0\n"), 1000)
		for range 200 {
			if _, err := deaf.Write(bad); err != nil {
				return
			}
		}
	}()
	alice := envelope(t, 1000)
	g := h.dial()
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
}

func TestLogBounded(t *testing.T) {
	h := start(t, nil)
	g := h.dial()
	for range 3 * maxComplaint {
		g.send([]byte("TOTP-ENVELOPE 0\n"))
		g.expect(frame.Err(frame.WordFormat))
	}
	if n := strings.Count(h.log.String(), "\n"); n > maxComplaint+10 {
		t.Errorf("%d lines logged", n)
	}
}

func TestLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("writes more than a thousand files")
	}
	h := start(t, func(o *Options) { o.tune = careless })
	alice := envelope(t, 10)
	g := h.dial()
	for i := range maxNew + 1 {
		id := fmt.Sprintf("abcdefghijklmnopqrstuv%s", digits32(i))
		g.send(message(t, id, "alice", alice))
		if i < maxNew {
			g.expect(frame.OK(alice))
		} else {
			g.expect(frame.Err(frame.WordLimit))
		}
	}
}

func digits32(i int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	return string([]byte{alphabet[i>>15&31], alphabet[i>>10&31], alphabet[i>>5&31], alphabet[i&31]})
}

// Connecting: to a socket that is not there yet, and again after the other
// side went away, as at a restart of the machine.
func TestConnect(t *testing.T) {
	h := start(t, func(o *Options) { o.Listen = false; o.Once = 2 })
	h.wait(func() bool { return strings.Contains(h.log.String(), "waiting") })
	l, err := net.Listen("unix", h.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accept := func() *guest {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return &guest{c, t, bufio.NewReader(c)}
	}
	alice, bob := envelope(t, 1000), envelope(t, 1000)
	g := accept()
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
	g.send(message(t, bobID, "bob", bob)[:500])
	g.Close()
	g = accept()
	g.send(message(t, bobID, "bob", bob))
	g.expect(frame.OK(bob))
	g.Close()
	h.finish()
}

func TestSocketErrors(t *testing.T) {
	t.Run("in use", func(t *testing.T) {
		h := start(t, nil)
		err := Run(t.Context(), Options{Socket: h.Socket, Dir: h.Dir, Listen: true})
		if !errors.Is(err, ErrInUse) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("left behind", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		h := start(t, func(o *Options) { o.Socket = socket })
		alice := envelope(t, 10)
		h.wait(func() bool { return strings.Contains(h.log.String(), "listening") })
		g := h.dial()
		g.send(message(t, aliceID, "alice", alice))
		g.expect(frame.OK(alice))
	})
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "s")
		if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), Options{Socket: file, Dir: t.TempDir(), Listen: true}); err == nil {
			t.Error("listens on a file")
		}
		if b, _ := os.ReadFile(file); string(b) != "precious" {
			t.Error("the file is gone")
		}
	})
	t.Run("path too long", func(t *testing.T) {
		for _, listen := range []bool{false, true} {
			err := Run(t.Context(), Options{Socket: "/" + strings.Repeat("s", 200), Dir: t.TempDir(), Listen: listen})
			if err == nil || errors.Is(err, context.Canceled) {
				t.Errorf("listen %v: %v", listen, err)
			}
		}
	})
}

// TestSocketMode looks at the socket all the time while it is made again and again:
// whenever it has its name, only its owner can connect to it.
func TestSocketMode(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	socket := filepath.Join(t.TempDir(), "s")
	done := make(chan struct{})
	seen := make(chan map[fs.FileMode]int)
	go func() {
		modes := map[fs.FileMode]int{}
		for {
			select {
			case <-done:
				seen <- modes
				return
			default:
			}
			if fi, err := os.Lstat(socket); err == nil {
				modes[fi.Mode()]++
			}
		}
	}()
	for range 400 {
		l, err := listen(t.Context(), socket)
		if err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Lstat(socket); err != nil || fi.Mode() != fs.ModeSocket|0o600 {
			t.Fatalf("%v, %v", fi.Mode(), err)
		}
		l.Close()
	}
	close(done)
	modes := <-seen
	delete(modes, fs.ModeSocket|0o600)
	if len(modes) > 0 {
		t.Errorf("other modes were seen: %v", modes)
	}
}

func TestDir(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Options{Socket: "s", Dir: dir}); !errors.Is(err, ErrDir) {
		t.Errorf("writable for others: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 1000, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := Run(t.Context(), Options{Socket: "s", Dir: dir}); !errors.Is(err, ErrDir) {
			t.Errorf("of somebody else: %v", err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), Options{Socket: "s", Dir: file}); err == nil {
		t.Error("a file: no error")
	}
}

// What receivers that were killed have left goes once it is old enough, also while a
// receiver runs that was started at once. Nothing else does.
func TestSweep(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no modes")
	}
	base := t.TempDir()
	dir := filepath.Join(base, "envelopes")
	socket := filepath.Join(base, "sock")
	for _, d := range []string{dir, filepath.Join(dir, tmpPrefix+"dir"), filepath.Join(base, ".t123"), filepath.Join(base, ".t45"), filepath.Join(base, ".tmp"), filepath.Join(base, ".t"), filepath.Join(base, ".t678")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(base, ".t678"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(base, ".t123", "s"))
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	for _, name := range []string{"envelopes/.tmp-1", "envelopes/tmp-1", "envelopes/.tmp", ".t9", ".t45/file"} {
		if err := os.WriteFile(filepath.Join(base, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() string {
		var names []string
		filepath.WalkDir(base, func(p string, _ fs.DirEntry, err error) error {
			if rel, _ := filepath.Rel(base, p); err == nil && p != base && rel != "sock" {
				names = append(names, rel)
			}
			return nil
		})
		return strings.Join(names, " ")
	}
	before := left()
	sweep(dir, socket, time.Hour)
	if got := left(); got != before {
		t.Errorf("swept what is young: left %s", got)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Socket: socket, Listen: true, Dir: dir, stale: 100 * time.Millisecond})
	}()
	const want = ".t .t45 .t45/file .t678 .t9 .tmp envelopes envelopes/.tmp envelopes/.tmp-dir envelopes/tmp-1"
	for deadline := time.Now().Add(time.Minute); left() != want && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if got := left(); got != want {
		t.Errorf("left %s, want %s", got, want)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// pipe is a connection whose peer is a byte slice.
type pipe struct {
	net.Conn // nil: nothing else is called
	in       io.Reader
	out      *bytes.Buffer
}

func (p pipe) Read(b []byte) (int, error)       { return p.in.Read(b) }
func (p pipe) Write(b []byte) (int, error)      { return p.out.Write(b) }
func (p pipe) Close() error                     { return nil }
func (p pipe) SetReadDeadline(time.Time) error  { return nil }
func (p pipe) SetWriteDeadline(time.Time) error { return nil }

// careless leaves it to the system when something reaches the disk.
func careless(g *group) {
	g.syncFiles = func(files []*os.File) []error { return make([]error, len(files)) }
	g.syncDirs = func(dirs []string) []error { return make([]error, len(dirs)) }
}

// FuzzSession feeds a connection. Every file that comes of it has a proper
// name and is what was confirmed.
func FuzzSession(f *testing.F) {
	alice := envelope(f, 100)
	msg := message(f, aliceID, "alice", alice)
	f.Add(msg)
	f.Add(append(bytes.Clone(msg[:len(msg)/2]), msg...))
	f.Add([]byte("TOTP-ENVELOPE 1 " + aliceID + " alice 3\nab\n"))
	f.Add([]byte("TOTP-ENVELOPE 1 " + aliceID + " ../x 3\nab\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h := &host{t: t, Options: Options{Dir: t.TempDir(), Log: io.Discard, frameTime: time.Second}}
		st := newStore(h.Dir, writeAll)
		careless(&st.groups)
		r := &receiver{Options: h.Options, store: st, hooks: &hooks{}, done: func() {}, names: map[string]bool{}}
		out := &bytes.Buffer{}
		r.serve(t.Context(), pipe{in: bytes.NewReader(in), out: out})
		for _, name := range h.files() {
			user, id, ok := strings.Cut(strings.TrimSuffix(name, ".age"), "-")
			if i := strings.LastIndex(name, "-"); ok && i > 0 {
				user, id = name[:i], strings.TrimSuffix(name[i+1:], ".age")
			}
			if frame.CheckUser(user) != nil || frame.CheckID(id) != nil {
				t.Errorf("file %q", name)
			}
			if data := h.stored(name); !isAge(data) || !strings.Contains(out.String(), frame.OK(data)) {
				t.Errorf("%q is no age file or was not confirmed", name)
			}
		}
		if strings.Count(out.String(), "OK ") < len(h.files()) {
			t.Error("more files than confirmations")
		}
	})
}

func BenchmarkReceive(b *testing.B) {
	h := start(b, nil)
	g := h.dial()
	alice := envelope(b, 4000)
	for i := 0; b.Loop(); i++ {
		if i%maxNew == maxNew-1 {
			g = h.dial()
		}
		g.send(message(b, "abcdefghijklmnopqrstuv"+digits32(i), "alice", alice))
		g.expect(frame.OK(alice))
	}
}
