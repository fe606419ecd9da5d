// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func TestAddresses(t *testing.T) {
	for _, test := range []struct {
		from []string
		want string
	}{
		{nil, "[192.0.2.1]"},
		{[]string{"10.0.0.0/8"}, "[192.0.2.1 10.0.0.0]"},
		{[]string{"192.0.2.0/24", "fd00::/16"}, "[198.51.100.1 192.0.2.0 fd00::]"},
	} {
		var got []string
		for _, a := range addresses(policy.SSHD{ExemptFrom: test.from}) {
			got = append(got, a.String())
		}
		if s := "[" + strings.Join(got, " ") + "]"; s != test.want {
			t.Errorf("%q: %s, want %s", test.from, s, test.want)
		}
	}
}

// The bake believes sshd, not its own file: what sshd demands of each account is
// what the policy says, no more and no less.
func TestExemptAccounts(t *testing.T) {
	m := newMachine(t)
	m.put(target.Group, "deploy:x:2000:alice\n", 0o644)
	o := m.options()
	o.Policy.SSHD.ExemptGroups = []string{"deploy"}
	if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrEffective) {
		t.Errorf("sshd asks an exempt account for a code: %v", err)
	}
	m.keyAlone = []string{"alice"}
	if _, err := Run(t.Context(), m.Target, o); err != nil {
		t.Error(err)
	}
	findings, err := Check(t.Context(), m.Target)
	if err != nil || len(findings) != 1 || findings[0].ID != "exempt" || findings[0].Severity != Notice || !strings.Contains(findings[0].What, "alice") {
		t.Errorf("%v, %v; want a notice about alice", findings, err)
	}
	o.Policy.SSHD = policy.SSHD{}
	if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrEffective) {
		t.Errorf("a key alone of somebody who is not exempt: %v", err)
	}
}

// Root by another name is exempt by no rule: sshd's rules know names only, so each
// is left out by its own.
func TestRootAliases(t *testing.T) {
	all := policy.SSHD{ExemptGroups: []string{"deploy"}, ExemptUsers: []string{"ansible", "toor"}, ExemptFrom: []string{"10.0.0.0/8"}}
	for _, test := range []struct {
		roots []string
		want  string
	}{
		{nil, "Group deploy User *,!root; User ansible,toor; Address 10.0.0.0/8 User *,!root"},
		{[]string{"toor"}, "Group deploy User *,!root,!toor; User ansible; Address 10.0.0.0/8 User *,!root,!toor"},
		{[]string{"ansible", "toor"}, "Group deploy User *,!root,!ansible,!toor; Address 10.0.0.0/8 User *,!root,!ansible,!toor"},
		// Names that useradd would refuse, and passwd(5) can hold.
		{[]string{"a b", "x*,!y", "Toor$", "é"}, "Group deploy User *,!root,!a?b,!x???y,!Toor$,!??; User ansible,toor; Address 10.0.0.0/8 User *,!root,!a?b,!x???y,!Toor$,!??"},
	} {
		if got := strings.Join(criteria(all, test.roots), "; "); got != test.want {
			t.Errorf("%q: %q\nwant %q", test.roots, got, test.want)
		}
	}
}

func TestExemptRoot(t *testing.T) {
	alias := func(m *machine) {
		m.put(target.Passwd, m.read(target.Passwd)+"toor:x:0:0::/root:/usr/sbin/nologin\n", 0o644)
		m.put(target.Group, "deploy:x:2000:toor\n", 0o644)
	}
	// By name, the policy contradicts itself.
	m := newMachine(t)
	alias(m)
	o := m.options()
	o.Policy.SSHD = policy.SSHD{ExemptUsers: []string{"toor"}}
	if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrEffective) || !errors.Is(err, policy.ErrExemptRoot) || !strings.Contains(err.Error(), "toor") {
		t.Errorf("by name: %v", err)
	}

	// In an exempt group, the account needs a code as root does. One that comes after
	// the bake is critical until the settings leave it out.
	m = newMachine(t)
	o = m.options()
	o.Policy.SSHD = policy.SSHD{ExemptGroups: []string{"deploy"}}
	if _, err := Run(t.Context(), m.Target, o); err != nil {
		t.Fatal(err)
	}
	alias(m)
	found := func() (critical bool) {
		findings, err := Check(t.Context(), m.Target)
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(findings, func(f Finding) bool { return f.ID == "exempt-root" && f.Severity == Critical })
	}
	if !found() {
		t.Error("an account that became root's after the bake was not found")
	}
	m.keyAlone = []string{"toor"} // as sshd would with the settings of before
	if findings, err := Check(t.Context(), m.Target); err != nil || !slices.ContainsFunc(findings, func(f Finding) bool { return f.ID == "sshd-effective" }) {
		t.Errorf("%v, %v: sshd was not asked about it", findings, err)
	}
	if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrEffective) {
		t.Errorf("sshd wants no code of it: %v", err)
	}
	m.keyAlone = nil
	if _, err := Run(t.Context(), m.Target, o); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{target.SSHDLogin, target.SSHDDropIn} {
		if text := m.read(name); !strings.Contains(text, "Match Group deploy User *,!root,!toor\n") {
			t.Errorf("%s:\n%s", name, text)
		}
	}
	if found() {
		t.Error("baked again, and still found")
	}
}
