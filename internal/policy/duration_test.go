// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"0s": 0, "5s": 5 * time.Second, "90s": 90 * time.Second, "2m": 2 * time.Minute, "36h": 36 * time.Hour, "30d": 30 * day, "999999999s": 999999999 * time.Second,
	} {
		if got, err := Duration(s); got != want || err != nil {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "s", "5", "5S", "-5s", "+5s", "5 s", " 5s", "1.5h", "1h30m", "05s", "5ms", "999999999d", "99999999999999999999s", "5\x00", "٥s"} {
		if got, err := Duration(s); !errors.Is(err, ErrDuration) {
			t.Errorf("%q: got %v, %v", s, got, err)
		}
	}
	for d, want := range map[time.Duration]string{0: "0s", time.Second: "1s", time.Minute: "1m", 90 * time.Second: "90s", day: "1d", 3650 * day: "3650d"} {
		if got := showDuration(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
