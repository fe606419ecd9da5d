// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// Each of these files is one that visudo takes, before and after: the acceptance
// tests ask it.
func TestWithoutSudoRules(t *testing.T) {
	for _, test := range []struct {
		text, want string
		says       bool
	}{
		{"# User rules for packer\npacker ALL=(ALL) NOPASSWD:ALL\n", "", false},
		{"# Created by cloud-init\n\n# User rules for packer\npacker ALL=(ALL) NOPASSWD:ALL\n", "# Created by cloud-init\n\n", false},
		{"packer ALL=ALL\nalice ALL=ALL\n", "alice ALL=ALL\n", true},
		{"packers ALL=ALL\n%packer ALL=ALL\n", "packers ALL=ALL\n%packer ALL=ALL\n", true},
		{"\tpacker\tALL=ALL", "", false},
		{"alice ALL=(packer) ALL\n", "alice ALL=(packer) ALL\n", true},
		{"packer ALL=(ALL) \\\n  NOPASSWD: ALL\nalice ALL=ALL\n", "alice ALL=ALL\n", true},
		{"packer,alice ALL=ALL\n", "alice ALL=ALL\n", true},
		{"alice , packer,\\\n\tbob ALL=ALL, \\\n !/bin/su\n", "alice, bob ALL=ALL, \\\n !/bin/su\n", true},
		{"packer, \"packer\" ALL=ALL\n", "", false},
		{"ALL,!packer ALL=ALL\n", "ALL,!packer ALL=ALL\n", true},
		{"#1000 ALL=ALL\n# packer ALL=ALL\n# a comment \\\npacker ALL=ALL\n", "#1000 ALL=ALL\n# packer ALL=ALL\n# a comment \\\n", true},
		{"#includedir /etc/sudoers.d\n", "#includedir /etc/sudoers.d\n", true},
		{"Defaults:packer !requiretty\nDefaults env_reset\n", "Defaults env_reset\n", true},
		{"Defaults:packer,alice !requiretty\n", "Defaults:alice !requiretty\n", true},
		{"User_Alias ADMINS = alice, packer : BUILD = packer\nBUILD ALL=ALL\n", "User_Alias ADMINS = alice : BUILD = !ALL\nBUILD ALL=ALL\n", true},
		{"User_Alias BUILD = packer\n", "User_Alias BUILD = !ALL\n", true},
		{"Cmnd_Alias packer = /bin/ls\n", "Cmnd_Alias packer = /bin/ls\n", true},
		{"", "", false},
	} {
		if got, says := withoutSudoRules(test.text, "packer"); got != test.want || says != test.says {
			t.Errorf("%q: %q, %v; want %q, %v", test.text, got, says, test.want, test.says)
		}
	}
}

func FuzzWithoutSudoRules(f *testing.F) {
	for _, s := range []string{"packer ALL=ALL\n", "a,packer ALL=\\\nALL", "User_Alias A = packer", "Defaults:packer x", "\"", ",", "\\"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once, _ := withoutSudoRules(text, "packer")
		if !strings.Contains(text, "packer") && once != text {
			t.Errorf("%q became %q", text, once)
		}
		if twice, _ := withoutSudoRules(once, "packer"); twice != once {
			t.Errorf("%q: %q, then %q", text, once, twice)
		}
	})
}

// Rules that sudo would not read are worse than rules that are too many.
func TestDropSudoRulesRestores(t *testing.T) {
	const before = "packer ALL=ALL\nalice ALL=ALL\n"
	files := map[string]string{sudoersFile: "packer ALL=ALL\n", sudoersDir + "/a": before, sudoersDir + "/b": "packer ALL=ALL\n", visudo: ""}
	tt, r := targettest.New(t)
	for name, text := range files {
		targettest.Put(t, tt, name, text, 0o440)
	}
	c := &cleaner{ctx: t.Context(), t: tt, log: io.Discard, policy: new(policy.Policy)}
	bad := errors.New("exit status 1")
	r.Handle = func([]string) targettest.Answer { return targettest.Answer{Err: bad} }
	if err := c.dropSudoRules("packer"); !errors.Is(err, bad) {
		t.Errorf("got %v", err)
	}
	for name, text := range files {
		if b, err := tt.ReadFile(name); err != nil || string(b) != text {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	r.Handle = nil
	if err := c.dropSudoRules("packer"); err != nil {
		t.Error(err)
	}
	for name, want := range map[string]string{sudoersFile: "", sudoersDir + "/a": "alice ALL=ALL\n"} {
		if b, err := tt.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
	if tt.Exists(sudoersDir + "/b") {
		t.Error("a file without rules stays")
	}
	if calls := r.Calls(); len(calls) != 2 {
		t.Errorf("ran %q", calls)
	}
}
