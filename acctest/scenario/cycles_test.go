// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"errors"
	"testing"
)

// The words are those of systemd 247 to 257, transaction.c.
func TestCycles(t *testing.T) {
	for text, want := range map[string]bool{
		"": false,
		"[    3.1] systemd[1]: Queued start job for default target graphical.target.\n":                                                         false,
		"basic.target: Found ordering cycle on sockets.target/start\n":                                                                          true,
		"[    3.1] systemd[1]: ssh.socket: Job ssh.socket/start deleted to break ordering cycle starting with basic.target/start\r\nready.\r\n": true,
		"sysinit.target: Found ordering cycle: a.service/start after b.service/start - after sysinit.target\n":                                  true,
		"[ SKIP ] Ordering cycle found, skipping Socket Units.\n":                                                                               true,
	} {
		if err := Cycles("before\n"+text, ""); errors.Is(err, ErrCycle) != want {
			t.Errorf("%q on the console: %v", text, err)
		}
		if err := Cycles("", text); errors.Is(err, ErrCycle) != want {
			t.Errorf("%q in the journal: %v", text, err)
		}
	}
}
