// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package nspawn

import (
	"context"
	"os"
	"strings"
	"sync"
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
