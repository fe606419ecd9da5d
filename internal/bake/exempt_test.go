// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
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

// Root by another name is not exempt: sshd's rule would not know it.
func TestExemptRoot(t *testing.T) {
	for name, p := range map[string]policy.SSHD{
		"by group":   {ExemptGroups: []string{"deploy"}},
		"by name":    {ExemptUsers: []string{"toor"}},
		"by network": {ExemptFrom: []string{"10.0.0.0/8"}},
	} {
		m := newMachine(t)
		m.put(target.Passwd, m.read(target.Passwd)+"toor:x:0:0::/root:/bin/sh\n", 0o644)
		m.put(target.Group, "deploy:x:2000:toor\n", 0o644)
		o := m.options()
		o.Policy.SSHD = p
		if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrEffective) || !strings.Contains(err.Error(), "toor") {
			t.Errorf("%s: %v", name, err)
		}
		o.Policy.SSHD = policy.SSHD{}
		if _, err := Run(t.Context(), m.Target, o); err != nil {
			t.Errorf("not exempt: %v", err)
		}
	}
}
