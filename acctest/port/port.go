// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package port finds ports of this machine for the lab's SSH servers, and tells
// whether one answers there. Nothing but the loopback address is used.
package port

import (
	"context"
	"io"
	"net"
	"strings"
	"time"
)

// Greeted reports whether an SSH server is at addr, within so long: accepting
// the connection is not enough, since QEMU does that before the guest does
// anything.
func Greeted(ctx context.Context, addr string, within time.Duration) bool {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	return GreetedBy(conn, within)
}

// GreetedBy is [Greeted] for a connection that exists.
func GreetedBy(conn net.Conn, within time.Duration) bool {
	_ = conn.SetDeadline(time.Now().Add(within))
	buf := make([]byte, 8)
	n, _ := io.ReadFull(conn, buf)
	return strings.HasPrefix(string(buf[:n]), "SSH-2.0")
}
