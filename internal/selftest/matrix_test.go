// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"strings"
	"testing"
)

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
