// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func TestSystems(t *testing.T) {
	for _, test := range []struct {
		id, version, name string // name empty: refused
		support           Support
	}{
		{"debian", "11", "Debian 11", Proven},
		{"debian", "12", "Debian 12", Proven},
		{"debian", "13", "Debian 13", Proven},
		{"debian", "10", "", ""},
		{"debian", "14", "", ""},
		{"debian", "", "", ""}, // sid
		{"ubuntu", "22.04", "Ubuntu 22.04", Untested},
		{"ubuntu", "24.04", "Ubuntu 24.04", Untested},
		{"ubuntu", "26.10", "Ubuntu 26.10", Untested},
		{"ubuntu", "20.04", "", ""},
		{"ubuntu", "22", "", ""},
		{"ubuntu", "x", "", ""},
		{"ubuntu", "", "", ""},
		{"rhel", "9.4", "", ""},
	} {
		m := newMachine(t)
		m.put(target.OSRelease, "ID="+test.id+"\nVERSION_ID=\""+test.version+"\"\n", 0o644)
		f, err := factsOf(m.Target, nil)
		switch {
		case (err == nil) != (test.name != ""):
			t.Errorf("%s %s: %v", test.id, test.version, err)
		case err == nil && (f.name != test.name || f.support != test.support || f.versionID != test.version):
			t.Errorf("%s %s: %s, %s, %s", test.id, test.version, f.name, f.versionID, f.support)
		}
	}
}
