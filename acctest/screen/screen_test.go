// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package screen_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/screen"
)

// getty answers a login of root on conn, and runs no command but "true".
func getty(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	line := func() string { s, _ := in.ReadString('\n'); return strings.TrimSpace(s) }
	say := func(text string) { _, _ = io.WriteString(conn, text) }
	line() // the Enter for a new prompt
	say("Debian web1 login: ")
	if line() != "root" {
		return
	}
	say("Password: ")
	if line() != "secret" {
		say("Login incorrect\n")
		return
	}
	say("# ")
	command, echo, _ := strings.Cut(line(), " && echo ")
	if command == "true" {
		say(strings.ReplaceAll(echo, "''", "") + "\n")
	}
	_, _ = io.Copy(io.Discard, in)
}

func TestLogIn(t *testing.T) {
	for _, tt := range []struct {
		password, command string
		ok                bool
	}{{"secret", "true", true}, {"wrong", "true", false}, {"secret", "false", false}} {
		limit := time.Hour
		if !tt.ok { // what is waited for never comes
			limit = 3 * time.Second
		}
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		near, far := net.Pipe()
		go getty(far)
		_, err := screen.LogIn(ctx, near, tt.password, tt.command)
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, screen.ErrConsole) {
			t.Errorf("%s with %s: %v", tt.command, tt.password, err)
		}
		_ = near.Close()
		cancel()
	}
}
