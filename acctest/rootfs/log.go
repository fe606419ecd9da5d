// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package rootfs

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
)

// Syslog returns what programs of the root, PAM modules among them, have sent to
// /dev/log so far, one datagram a line.
func (r *Root) Syslog() string { return r.log.text() }

// logCatcher is the other end of a root's /dev/log.
type logCatcher struct {
	conn *net.UnixConn
	mu   sync.Mutex
	all  strings.Builder
}

// catchLog listens on log in the directory dev.
func catchLog(dev string) (*logCatcher, error) {
	dir, err := os.Open(dev)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	// A socket's path has room for 107 bytes; this one is always short.
	path := fmt.Sprintf("/proc/self/fd/%d/log", dir.Fd())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		_ = conn.Close()
		return nil, err
	}
	c := &logCatcher{conn: conn}
	go c.read()
	return c, nil
}

func (c *logCatcher) read() {
	buf := make([]byte, 64<<10)
	for {
		n, err := c.conn.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		c.all.Write(buf[:n])
		c.all.WriteByte('\n')
		c.mu.Unlock()
	}
}

func (c *logCatcher) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all.String()
}

func (c *logCatcher) close() error {
	if err := c.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
