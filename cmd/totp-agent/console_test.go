// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// TestStoppedConsole: output that is stopped, as by Ctrl-S, does not hold the
// boot, and goes on when it is started again.
func TestStoppedConsole(t *testing.T) {
	host, line, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	defer host.Close()
	defer line.Close()
	flow := func(action int) {
		t.Helper()
		// See tcflow(3) and ioctl_tty(2).
		if err := unix.IoctlSetInt(int(line.Fd()), unix.TCXONC, action); err != nil {
			t.Fatal(err)
		}
	}
	const tcooff, tcoon = 0, 1

	c, err := openConsole(line.Name(), 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	flow(tcooff)
	gaveUp := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, "lost\r\n")
		gaveUp <- err
	}()
	select {
	case err := <-gaveUp:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("stopped console: %v, want the deadline", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a stopped console holds the boot")
	}

	flow(tcoon)
	c.patience = time.Minute // which a busy machine may take
	if _, err := io.WriteString(c, "notice\r\n"); err != nil {
		t.Fatalf("console that runs again: %v", err)
	}
	got := make([]byte, 64)
	n, err := host.Read(got)
	if err != nil || !bytes.HasPrefix(got[:n], []byte("notice")) {
		t.Errorf("the console shows %q, %v", got[:n], err)
	}
}
