// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package port_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
)

func TestGreeted(t *testing.T) {
	for banner, want := range map[string]bool{"SSH-2.0-OpenSSH_9.2p1\r\n": true, "HTTP/1.1 400\r\n": false, "": false} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			conn, err := l.Accept()
			if err == nil {
				io.WriteString(conn, banner)
				conn.Close()
			}
		}()
		if got := port.Greeted(t.Context(), l.Addr().String(), time.Minute); got != want {
			t.Errorf("%q: %v", banner, got)
		}
		l.Close()
		if port.Greeted(t.Context(), l.Addr().String(), time.Minute) {
			t.Error("greeted by nobody")
		}
	}
}
