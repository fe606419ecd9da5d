// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func TestMainFileProblems(t *testing.T) {
	const include = "Include /etc/ssh/sshd_config.d/*.conf\n"
	for _, test := range []struct {
		name, text string
		want       []string // IDs, with the line
	}{
		{"stock", stock(t, "sshd_config"), nil},
		{"first", include, nil},
		{"relative", "include sshd_config.d/*.conf\n", nil},
		{"quoted", "\tINCLUDE=\"/etc/ssh/sshd_config.d/*.conf\"\n", nil},
		{"our file alone", "Include /etc/ssh/sshd_config.d/00-00-totp.conf\n", nil},
		{"harmless keywords first", "Port 2222\nListenAddress ::\n#UsePAM no\n" + include, nil},
		{"what follows does not matter", include + "UsePAM no\nMatch all\n", nil},
		{"none", "Port 22\n", []string{"sshd-no-include"}},
		{"empty", "", []string{"sshd-no-include"}},
		{"commented out", "#" + include, []string{"sshd-no-include"}},
		{"another directory", "Include /etc/ssh/other/*.conf\n", []string{"sshd-include-before:1", "sshd-no-include"}},
		{"another pattern first", "Include /etc/x.conf /etc/ssh/sshd_config.d/*.conf\n", []string{"sshd-include-before:1", "sshd-no-include"}},
		{"in a Match block", "Match User bob\n" + include, []string{"sshd-match-before:1"}},
		{"a quoted Match block", "\"Match\" address 10.0.0.0/8\n" + include, []string{"sshd-match-before:1"}},
		{"a quoted keyword", "\"UsePAM\" no\n\"passwordauthentication\"yes\n" + include, []string{"sshd-keyword-before:1", "sshd-keyword-before:2"}},
		{"keywords of ours first", "UsePAM no\nx11forwarding=yes\n" + include, []string{"sshd-keyword-before:1", "sshd-keyword-before:2"}},
		{"a keyword of older versions", "ChallengeResponseAuthentication no\n" + include, []string{"sshd-keyword-before:1"}},
	} {
		var got []string
		ps := mainFileProblems(test.text, allKeywords())
		for _, p := range ps {
			_, line, _ := strings.Cut(p.path, ":")
			got = append(got, strings.TrimSuffix(p.id+":"+line, ":"))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
		if err := ps.err(); errors.Is(err, ErrSSHDConfig) != (len(test.want) > 0) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func FuzzSSHDDirective(f *testing.F) {
	for _, s := range []string{"Include /etc/ssh/*.conf", "UsePAM=no", "# x", "Match User \"a b\"", "\"", "x=\"\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		keyword, _ := target.SSHDDirective(s)
		if keyword != strings.ToLower(keyword) || strings.ContainsAny(keyword, " \t=\"") {
			t.Fatalf("%q: %q", s, keyword)
		}
	})
}

func TestParseEffective(t *testing.T) {
	m := parseEffective([]byte("usepam yes\nkexalgorithms a,b\nAcceptEnv LANG\nacceptenv LC_*\nbanner none\n\nlonely\n"))
	for k, want := range map[string]string{"usepam": "yes", "kexalgorithms": "a,b", "acceptenv": "LANG", "lonely": ""} {
		if m[k] != want {
			t.Errorf("%s: %q, want %q", k, m[k], want)
		}
	}
}

func TestWeaknesses(t *testing.T) {
	all := new(policy.Policy).WithDefaults().SSHD
	root := connection{"root", netip.MustParseAddr("192.0.2.1")}
	want := known(auth, v(9, 2), all)
	good := map[string]string{}
	for _, s := range want {
		good[strings.ToLower(s.keyword)] = s.value
	}
	if ws := weaknesses(root, false, good, want); ws != nil {
		t.Errorf("found %v in what is wanted", ws)
	}
	if len(good) < 10 {
		t.Errorf("only %d settings decide a login", len(good))
	}
	for _, s := range want {
		for _, value := range []string{"", "other"} {
			bad := maps.Clone(good)
			bad[strings.ToLower(s.keyword)] = value
			if ws := weaknesses(root, false, bad, want); len(ws) != 1 || ws[0].keyword != s.keyword {
				t.Errorf("%s %q: %v", s.keyword, value, ws)
			}
		}
	}
	// A key alone is for the exempt alone, and a code as well is more than they
	// could give.
	if ws := weaknesses(root, true, good, want); len(ws) != 1 {
		t.Errorf("exempt, and asked for a code: %v", ws)
	}
	alone := maps.Clone(good)
	alone["authenticationmethods"] = keyAlone
	if ws := weaknesses(root, true, alone, want); ws != nil {
		t.Errorf("exempt: %v", ws)
	}
	if ws := weaknesses(root, false, alone, want); len(ws) != 1 {
		t.Errorf("a key alone of everybody: %v", ws)
	}
	// The oldest version shows the alias that counts there.
	old := maps.Clone(good)
	old["challengeresponseauthentication"] = "no"
	if ws := weaknesses(root, false, old, known(auth, v(8, 4), all)); len(ws) != 1 {
		t.Errorf("8.4: %v", ws)
	}
}
