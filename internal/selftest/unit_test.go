// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"slices"
	"strings"
	"testing"
)

func TestStartOptions(t *testing.T) {
	env := map[string]string{}
	environment("# SSHD_OPTS=no\nSSHD_OPTS=\"-4 -o MaxSessions=3\"\nexport X\nEMPTY=\n", env)
	for _, c := range []struct{ unit, want string }{
		{"[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o UsePAM=yes -o A=b,c $SSHD_OPTS\n", "-o UsePAM=yes -o A=b,c -4 -o MaxSessions=3"},
		{"ExecStart=/usr/sbin/sshd -D ${SSHD_OPTS} $EMPTY $NONE\n", "-4 -o MaxSessions=3"},
		{"ExecStart=/usr/sbin/sshd -e -D\nExecReload=/bin/kill -HUP $MAINPID\n", ""},
		{"ExecStart=\n", ""},
		{"", ""},
	} {
		if got := startOptions(c.unit, env); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q: %q, want %q", c.unit, got, c.want)
		}
	}
}

// The names of rows are what a report is read by.
func TestMatrix(t *testing.T) {
	for _, lane := range lanes {
		for _, r := range lane {
			if r.role != lane[0].role {
				t.Errorf("%q: role %q in the lane of %q: two logins of an account could overlap", r.name, r.role, lane[0].role)
			}
			if !strings.HasPrefix(r.expect, wantsKey+"; ") || !strings.HasSuffix(r.expect, "; "+in) && !strings.HasSuffix(r.expect, "; "+out) {
				t.Errorf("%q expects %q", r.name, r.expect)
			}
		}
		// The PAM module takes three answers in thirty seconds.
		n := 0
		for _, r := range lane {
			if strings.Contains(r.expect, asksCode) {
				n++
			}
		}
		if n > 2 {
			t.Errorf("%q: %d answers", lane[0].role, n)
		}
	}
}
