// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// One sshd a connection gets the options that the sshd that stays gets, by the
// drop-ins of the units that the system has for that.
func TestTemplateUnits(t *testing.T) {
	for osRelease, want := range map[string][]string{
		"ID=debian\nVERSION_ID=11\n":    {"ssh@.service"},
		"ID=debian\nVERSION_ID=12\n":    nil,
		"ID=debian\nVERSION_ID=13\n":    {"sshd@.service"},
		"ID=ubuntu\nVERSION_ID=24.04\n": {"ssh@.service", "sshd@.service"},
	} {
		m := newMachine(t)
		m.put(target.OSRelease, osRelease, 0o644)
		m.bake()
		stays := startOf(t, m, "ssh.service")
		var got []string
		for _, unit := range []string{"ssh@.service", "sshd@.service"} {
			drop := dropInOf(unit, sshUnitTemplate)
			if !m.Exists(drop) {
				continue
			}
			got = append(got, unit)
			m.put(target.SystemdVendorDir+"/"+unit, "[Service]\nExecStart=-/usr/sbin/sshd -i $SSHD_OPTS\n", 0o644)
			want := strings.Replace(stays, target.SSHD+" -D", "-"+target.SSHD+" -i", 1)
			if start := startOf(t, m, unit); start != want {
				t.Errorf("%q: %q, want %q", osRelease, start, want)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: drop-ins of %q, want %q", osRelease, got, want)
		}
		// Another start than the distribution's would be replaced: it is refused.
		for _, unit := range want {
			m.put(target.SystemdVendorDir+"/"+unit, "[Service]\nExecStart=-/usr/sbin/sshd -i $SSHD_OPTS\n", 0o644)
			m.bake()
			m.put(target.SystemdUnitDir+"/"+unit, "[Service]\nExecStart=-/usr/sbin/sshd -i -f /x\n", 0o644)
			if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, ErrUnit) || !strings.Contains(err.Error(), target.SystemdUnitDir+"/"+unit) {
				t.Errorf("%q, started otherwise: %v", osRelease, err)
			}
			m.must(m.Remove(target.SystemdUnitDir + "/" + unit))
		}
	}
}

func startOf(t *testing.T, m *machine, unit string) string {
	t.Helper()
	s, err := startBy(m.Target, unit)
	if err != nil {
		t.Fatal(err)
	}
	return s.Command
}

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
		{"rhel", "9.4", "RHEL 9.4", Untested},
		{"rhel", "10.0", "RHEL 10.0", Untested},
		{"rhel", "8.10", "", ""},
		{"rocky", "9.6", "Rocky Linux 9.6", Untested},
		{"almalinux", "10.1", "AlmaLinux 10.1", Untested},
		{"fedora", "43", "Fedora 43", Untested},
		{"fedora", "40", "", ""},
		{"centos", "9", "", ""},
		{"opensuse-leap", "15.6", "", ""},
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
