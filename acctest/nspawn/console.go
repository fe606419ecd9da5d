// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package nspawn

import (
	"context"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/screen"
)

// Console returns what has been written to the machine's console since it was booted
// last.
func (m *Machine) Console() string {
	b := m.now()
	if b == nil {
		return ""
	}
	return b.console.text()
}

// WaitConsole returns after a text has been written to the console since the machine
// was booted last.
func (m *Machine) WaitConsole(ctx context.Context, text string) error {
	return m.until(ctx, "waiting for "+text, func() bool { return strings.Contains(m.Console(), text) })
}

// LogIn logs in on the running machine's console as [screen.LogIn] does.
func (m *Machine) LogIn(ctx context.Context, password, command string) (string, error) {
	if !m.Running() {
		return "", ErrEnded
	}
	k := m.now().console.keyboard()
	defer k.close()
	return screen.LogIn(ctx, k, password, command)
}

// lastLine is the last line of the console, for errors.
func (m *Machine) lastLine() string {
	lines := strings.Split(strings.TrimRight(m.Console(), "\r\n"), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// console is the terminal that systemd-nspawn runs on, which is the machine's
// /dev/console.
type console struct {
	term *os.File
	read chan struct{} // closed at the end of the text

	mu  sync.Mutex
	all strings.Builder
}

func newConsole(term *os.File) *console {
	c := &console{term: term, read: make(chan struct{})}
	go func() {
		defer close(c.read)
		buf := make([]byte, 4096)
		for {
			n, err := term.Read(buf)
			c.mu.Lock()
			c.all.Write(buf[:n])
			c.mu.Unlock()
			if err != nil { // EIO: no process has the terminal open
				return
			}
		}
	}()
	return c
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.String()
}

func (c *console) close() {
	<-c.read
	_ = c.term.Close()
}

// keyboard is for one who sits at the console from now on: what was shown before is
// not read.
type keyboard struct {
	*console
	at   int // in the text
	done atomic.Bool
}

func (c *console) keyboard() *keyboard { return &keyboard{console: c, at: len(c.text())} }

func (k *keyboard) Write(p []byte) (int, error) { return k.term.Write(p) }

// Read waits for more of the text.
func (k *keyboard) Read(p []byte) (int, error) {
	for !k.done.Load() {
		if text := k.text(); len(text) > k.at {
			n := copy(p, text[k.at:])
			k.at += n
			return n, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0, io.EOF
}

func (k *keyboard) close() { k.done.Store(true) }
