// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package deliver

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// serial is a channel to a serial port, and the host's end of it: a terminal of
// the kernel's, as a serial port is.
func serial(t *testing.T) (c *tty, host *os.File) {
	t.Helper()
	host, port, err := pty.Open()
	must(t, err)
	t.Cleanup(func() { host.Close() })
	t.Cleanup(func() { port.Close() })
	c = drivers[policy.ChannelConsole].New(policy.Channel{Type: policy.ChannelConsole, Device: "/dev/ttyS1"}, nil).(*tty)
	c.open = func(name string, flag int) (device, error) {
		if name != "/dev/ttyS1" {
			t.Errorf("opened %q", name)
		}
		return os.OpenFile(port.Name(), flag|openDevice, 0)
	}
	return c, host
}

func TestSerialPort(t *testing.T) {
	c, host := serial(t)
	if c.Name() != "console:ttyS1" || c.Acknowledged() {
		t.Errorf("name %q, acknowledged %v", c.Name(), c.Acknowledged())
	}
	log := make(chan []byte, 1)
	go func() {
		var b bytes.Buffer
		for part := make([]byte, 4096); !bytes.Contains(b.Bytes(), []byte("-----END TOTP ENVELOPE "+aliceID)); {
			n, err := host.Read(part)
			b.Write(part[:n])
			if err != nil {
				break
			}
		}
		log <- b.Bytes()
	}()
	i := item()
	must(t, send(t, c, time.Minute))
	found := console.Decode(<-log)
	if len(found) != 1 || !found[0].Complete || found[0].ID != aliceID || !bytes.Equal(found[0].Sealed, i.Sealed) {
		t.Errorf("found %+v", found)
	}
}

// A host that stops the port, or does not read from it, holds nothing up.
func TestSerialPortStopped(t *testing.T) {
	c, host := serial(t)
	_, err := io.WriteString(host, "\x13") // Ctrl-S
	must(t, err)
	start := time.Now()
	if err := send(t, c, 100*time.Millisecond); !errors.Is(err, errNotTaken) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}

// What is no terminal is not written, whatever its name.
func TestSerialPortIsAFile(t *testing.T) {
	tg, _ := targettest.New(t)
	targettest.Put(t, tg, "/dev/ttyS1", "", 0o600)
	targettest.Put(t, tg, target.Console, "", 0o600)
	c := drivers[policy.ChannelConsole].New(policy.Channel{Device: "/dev/ttyS1"}, tg)
	if err := send(t, c, time.Second); !errors.Is(err, errNoTerminal) {
		t.Errorf("got %v", err)
	}
	for _, name := range []string{"/dev/ttyS1", target.Console} {
		if b, err := tg.ReadFile(name); err != nil || len(b) > 0 {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// A device whose open would wait for somebody at its other end, as a port waits for
// a carrier and a pipe for a reader, is not waited for.
func TestOpenDoesNotWait(t *testing.T) {
	tg, _ := targettest.New(t)
	targettest.Put(t, tg, "/dev/null", "", 0o600)
	must(t, syscall.Mkfifo(filepath.Join(tg.Root(), "dev/ttyS1"), 0o600))
	opened := make(chan error, 1)
	go func() {
		_, err := opener(tg)("/dev/ttyS1", os.O_WRONLY)
		opened <- err
	}()
	select {
	case err := <-opened:
		if !errors.Is(err, syscall.ENXIO) {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it waits")
	}
}
