// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"errors"
	"testing"
)

func TestParseTarget(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want Target
	}{
		{"192.0.2.7", Target{"", "192.0.2.7", 22}},
		{"alice@web-1.example:2222", Target{"alice", "web-1.example", 2222}},
		{"2001:db8::7", Target{"", "2001:db8::7", 22}},
		{"[2001:db8::7]", Target{"", "2001:db8::7", 22}},
		{"root@[2001:db8::7]:2222", Target{"root", "2001:db8::7", 2222}},
		{"fe80::1%eth0", Target{"", "fe80::1%eth0", 22}},
		{"web_1", Target{"", "web_1", 22}},
		{"a.example.", Target{"", "a.example.", 22}},
	}
	for _, tt := range tests {
		if got, err := ParseTarget(tt.in); err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v, want %+v", tt.in, got, err, tt.want)
		}
	}
	for _, in := range []string{
		"", "@host", "alice@", "-oProxyCommand=x", "host:", "host:0", "host:65536", "host:x", "host:+22", "host:22:22",
		"[host]:22", "[192.0.2.7]:22", "[2001:db8::7", "[2001:db8::7]22", "a b", "a\nb", "a/b", "ssh://a", "a..b", ".a", "-a", "a-",
		"al ice@host", "a\x1b[1m@host", "-a@host", "ü@host", "fe80::1%a b", "*", "a@b@c", "2001:db8:::7",
	} {
		if got, err := ParseTarget(in); !errors.Is(err, ErrTarget) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
	for in, want := range map[string]string{"a@b": "a@b:22", "2001:db8::7": "[2001:db8::7]:22"} {
		if got, err := ParseTarget(in); err != nil || got.String() != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"alice@host:22", "[2001:db8::7]:2222", "fe80::1%eth0", "a@b@c:d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseTarget(s)
		if err != nil {
			if !errors.Is(err, ErrTarget) {
				t.Errorf("%q: %v", s, err)
			}
			return
		}
		// It is what it was read from.
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q: %+v, and then %+v, %v", s, got, again, err)
		}
	})
}
