// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/term"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// TestOpenOnTerminal opens a card on a terminal and reads the screen with
// decoders: the QR code must scan on any background, whatever NO_COLOR says.
func TestOpenOnTerminal(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	for _, th := range []theme{dark, light} {
		for _, env := range []string{"NO_COLOR=", "NO_COLOR=1"} {
			t.Run(th.name+"/"+env, func(t *testing.T) {
				s := d.start(t, 80, env, "totpctl", "open", "-i", d.identity, d.envelope)
				if err := s.wait(); err != nil {
					t.Fatalf("%v: %s", err, s.stderr.String())
				}
				if said := s.stderr.String(); !strings.HasPrefix(said, "totpctl: origin: ") || strings.Count(said, "\n") != 1 {
					t.Errorf("stderr: %s", said)
				}
				got := show(t, s.output(), 80, th)
				if !strings.Contains(got.text(), d.card.BackupCodes[0]) {
					t.Error("there is no backup code on the screen")
				}
				for decoder, text := range got.scan(t) {
					if text != d.card.OTPAuth {
						t.Errorf("%s reads %q, want %q", decoder, text, d.card.OTPAuth)
					}
				}
			})
		}
	}
}

// TestAgeOnTerminal shows that nobody needs totpctl: age refuses to print what
// looks binary on a terminal, and prints a card. Without colours its QR code
// needs the background that the card names.
func TestAgeOnTerminal(t *testing.T) {
	needs(t, "age")
	d := newDesk(t, seal.GenerateX25519)
	for _, envelope := range []string{d.envelope, d.binary} {
		s := d.start(t, 80, "", "age", "-d", "-i", d.identity, envelope)
		if err := s.wait(); err != nil {
			t.Fatalf("age: %v: %s", err, s.stderr.String())
		}
		got := show(t, s.output(), 80, dark)
		if !strings.Contains(got.text(), d.card.BackupCodes[0]) {
			t.Error("there is no backup code on the screen")
		}
		for decoder, text := range got.scan(t) {
			if text != d.card.OTPAuth {
				t.Errorf("%s reads %q, want %q", decoder, text, d.card.OTPAuth)
			}
		}
		// The decoders are not kinder than a phone: they need the background.
		if text := zxing(t, show(t, s.output(), 80, light).image()); text != "" {
			t.Errorf("the code scans on a light background too: %q", text)
		}
	}
}

// TestNarrowTerminal wants a word where the screen cannot hold the code.
func TestNarrowTerminal(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	for _, tt := range []struct {
		width int
		warns bool
	}{{40, true}, {79, true}, {80, false}, {120, false}, {0, false}} {
		s := d.start(t, tt.width, "", "totpctl", "open", "-i", d.identity, d.envelope)
		if err := s.wait(); err != nil {
			t.Fatalf("%v: %s", err, s.stderr.String())
		}
		if warned := strings.Contains(s.stderr.String(), "--png alice.png"); warned != tt.warns {
			t.Errorf("%d columns: warned is %v, want %v: %s", tt.width, warned, tt.warns, s.stderr.String())
		}
	}
}

// TestDumbTerminal has no colours to print in.
func TestDumbTerminal(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	s := d.start(t, 80, "TERM=dumb", "totpctl", "open", "-i", d.identity, d.envelope)
	if err := s.wait(); err != nil {
		t.Fatal(err)
	}
	if bytes.ContainsRune(s.output(), '\x1b') {
		t.Error("there are escape sequences")
	}
}

// TestNoImageOnTerminal refuses to write a picture to a terminal.
func TestNoImageOnTerminal(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	s := d.start(t, 80, "", "totpctl", "open", "-i", d.identity, "--png", "-", d.envelope)
	if exit := new(exec.ExitError); !errors.As(s.wait(), &exit) || exit.ExitCode() != 2 {
		t.Errorf("got %v, want exit code 2", exit)
	}
	if out := s.output(); len(out) > 0 {
		t.Errorf("printed %d bytes", len(out))
	}
}

// TestNoEcho types a passphrase at the prompt and looks for it on the screen.
func TestNoEcho(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	s := d.start(t, 80, "", "totpctl", "open", "-i", d.locked(t), d.envelope)
	s.await(t, "locked.age\":")
	s.settle(t)
	s.write(t, passphrase+"\n")
	if err := s.wait(); err != nil {
		t.Fatalf("%v: %s", err, s.stderr.String())
	}
	if bytes.Contains(s.output(), []byte("correct")) {
		t.Error("the passphrase was echoed")
	}
	if !bytes.Contains(s.output(), []byte(d.card.BackupCodes[0])) {
		t.Error("the card was not shown")
	}
	// The prompt is erased: the line above is left and cleared.
	if !bytes.Contains(s.output(), []byte("\x1b[F\x1b[K")) {
		t.Error("the prompt was not erased")
	}
}

// TestInterruptedPrompt leaves the prompt by ctrl-c and wants the terminal as it
// was.
func TestInterruptedPrompt(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	s := d.start(t, 80, "", "totpctl", "open", "-i", d.locked(t), d.envelope)
	s.await(t, "locked.age\":")
	s.settle(t)
	s.write(t, "\x03")
	if exit := new(exec.ExitError); !errors.As(s.wait(), &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", exit)
	}
	after, err := term.GetState(int(s.tty.Fd()))
	check(t, err)
	if *after != *s.fresh {
		t.Error("the terminal was left without echo")
	}
}

// TestNoTerminal needs a passphrase where nobody can be asked.
func TestNoTerminal(t *testing.T) {
	d := newDesk(t, seal.GenerateX25519)
	cmd := exec.Command("totpctl", "open", "-i", d.locked(t), d.envelope)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // away from the terminal of the test
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got %v, want exit code 1", err)
	}
	if !strings.Contains(string(out), errNoTerminal.Error()) || !strings.Contains(string(out), "totpctl: hint: run totpctl in a terminal\n") {
		t.Errorf("says %q", out)
	}
}

// A session is a program on a terminal of its own. Its standard error is apart.
type session struct {
	cmd      *exec.Cmd
	ptm, tty *os.File
	stderr   bytes.Buffer
	drained  chan struct{}
	fresh    *term.State // of the terminal, before the program ran

	mu   sync.Mutex
	seen []byte
}

// start runs a program on a terminal of so many columns; 0 is one that does not
// know its size. Env is one variable, or nothing.
func (d *desk) start(t *testing.T, columns int, env string, name string, args ...string) *session {
	t.Helper()
	ptm, tty, err := pty.Open()
	check(t, err)
	if columns > 0 {
		check(t, pty.Setsize(ptm, &pty.Winsize{Rows: 24, Cols: uint16(columns)}))
	}
	s := &session{cmd: exec.Command(name, args...), ptm: ptm, tty: tty, drained: make(chan struct{})}
	s.cmd.Env = append(os.Environ(), "TERM=xterm-256color", "HOME="+d.dir)
	if env != "" {
		s.cmd.Env = append(s.cmd.Env, env)
	}
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = tty, tty, &s.stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	s.fresh, err = term.GetState(int(tty.Fd()))
	check(t, err)
	check(t, s.cmd.Start())
	go func() {
		defer close(s.drained)
		buf := make([]byte, 4096)
		for {
			n, err := ptm.Read(buf)
			s.mu.Lock()
			s.seen = append(s.seen, buf[:n]...)
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		s.tty.Close()
		s.ptm.Close()
	})
	return s
}

// wait waits for the program to end.
func (s *session) wait() error {
	timer := time.AfterFunc(2*time.Minute, func() { s.cmd.Process.Kill() })
	defer timer.Stop()
	return s.cmd.Wait()
}

// output is all that was printed, after wait.
func (s *session) output() []byte {
	s.tty.Close() // the last one: the reader comes to an end
	<-s.drained
	return s.seen
}

// await waits until the program has printed a text.
func (s *session) await(t *testing.T, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		found := bytes.Contains(s.seen, []byte(text))
		s.mu.Unlock()
		if found {
			return
		}
	}
	t.Fatalf("no %q on the terminal", text)
}

// settle waits until the program has switched echo off, which it does after it
// has printed its prompt.
func (s *session) settle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		now, err := term.GetState(int(s.tty.Fd()))
		check(t, err)
		if *now != *s.fresh {
			return
		}
	}
	t.Fatal("echo is on")
}

func (s *session) write(t *testing.T, text string) {
	t.Helper()
	_, err := s.ptm.WriteString(text)
	check(t, err)
}
