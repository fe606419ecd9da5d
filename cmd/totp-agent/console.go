// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"
	"syscall"
	"time"
)

// consolePatience is for how long the boot waits for the console: for its whole
// buffer at 9600 baud.
const consolePatience = 2 * time.Second

// console is the system console, written to by a service that others wait for. A
// console whose output somebody has stopped (Ctrl-S, tcflow(3)) or whose cable is
// dead takes nothing for as long as that lasts, and a write may not last as long.
type console struct {
	f        *os.File // not embedded: its other ways to write have no end
	patience time.Duration
}

func openConsole(name string, patience time.Duration) (*console, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	return &console{f, patience}, nil
}

// Write gives up with os.ErrDeadlineExceeded. O_NONBLOCK alone does not do that:
// a write that would block waits in the runtime's poller.
func (c *console) Write(p []byte) (int, error) {
	// What is no terminal has no deadline, and does not block either: the runtime
	// cannot poll it, and returns the EAGAIN.
	_ = c.f.SetWriteDeadline(time.Now().Add(c.patience))
	return c.f.Write(p)
}

// Close closes the console.
func (c *console) Close() error { return c.f.Close() }
