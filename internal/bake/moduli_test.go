// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

const (
	prime2k = "20210101000000 2 6 100 2047 2 F7A1\n"
	prime3k = "20210101000000 2 6 100 3071 5 DA57\n"
	prime8k = "20210101000000 2 6 100 8191 2 FFFF\n"
)

func TestModuli(t *testing.T) {
	const head = "# Time Type Tests Tries Size Generator Modulus\n"
	for name, test := range map[string]struct {
		text, want string
		algorithms string
	}{
		"small ones go":     {head + prime2k + prime3k + prime2k + prime8k, head + prime3k + prime8k, ""},
		"none is small":     {head + prime3k, head + prime3k, ""},
		"all are small":     {head + prime2k, head + prime2k, ""},
		"distro":            {prime2k + prime3k, prime2k + prime3k, policy.AlgorithmsDistro},
		"strict":            {prime2k + prime3k, prime3k, policy.AlgorithmsStrict},
		"lines of no prime": {"odd\n" + prime2k + "1 2 3 4 x 6 7\n" + prime3k, "odd\n1 2 3 4 x 6 7\n" + prime3k, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.put(target.Moduli, test.text, 0o644)
			o := m.options()
			o.Policy.SSHD.Algorithms = test.algorithms
			for range 2 {
				if _, err := Run(t.Context(), m.Target, o); err != nil {
					t.Fatal(err)
				}
				if got := m.read(target.Moduli); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
			}
			// An update brings the package's file back.
			m.put(target.Moduli, test.text, 0o644)
			findings, err := Check(t.Context(), m.Target)
			if got := strings.Contains(strings.Join(ids(findings), " "), "moduli"); err != nil || got != (test.text != test.want) {
				t.Errorf("found %q, %v", ids(findings), err)
			}
		})
	}
}
