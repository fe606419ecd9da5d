// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

const (
	timesyncd      = "/lib/systemd/system/systemd-timesyncd.service"
	timesyncdWants = "/etc/systemd/system/sysinit.target.wants/systemd-timesyncd.service"
	timesyncdAlias = "/etc/systemd/system/dbus-org.freedesktop.timesync1.service"
)

func TestTimeSync(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*machine)
		on      string   // the unit that is enabled afterwards
		made    []string // the links by which the bake does that
		apt     bool
		finding string // of a check afterwards
	}{
		{name: "enabled", prepare: func(*machine) {}, on: "systemd-timesyncd.service"},
		{name: "installed", prepare: func(m *machine) { m.must(m.Remove(timesyncdWants)) }, on: "systemd-timesyncd.service", made: []string{timesyncdWants, timesyncdAlias}},
		{name: "masked", prepare: func(m *machine) {
			m.must(m.Remove(timesyncdWants))
			m.must(m.Symlink("/dev/null", "/etc/systemd/system/systemd-timesyncd.service"))
		}, finding: "is masked"},
		{name: "another is enabled", prepare: func(m *machine) {
			m.must(m.Remove(timesyncdWants))
			m.put("/lib/systemd/system/chrony.service", "[Install]\nWantedBy=multi-user.target\n", 0o644)
			m.put("/etc/systemd/system/multi-user.target.wants/chrony.service", "", 0o644)
		}, on: "chrony.service"},
		{name: "another is installed, and a masked one", prepare: func(m *machine) {
			m.must(m.Remove(timesyncdWants))
			m.must(m.Symlink("/dev/null", "/etc/systemd/system/systemd-timesyncd.service"))
			m.put("/lib/systemd/system/openntpd.service", "[Install]\nWantedBy=multi-user.target\n", 0o644)
		}, on: "openntpd.service", made: []string{"/etc/systemd/system/multi-user.target.wants/openntpd.service"}},
		{name: "none", prepare: func(m *machine) {
			m.must(m.Remove(timesyncdWants))
			m.must(m.Remove(timesyncd))
			m.apt = func(argv []string) {
				if slices.Contains(argv, "systemd-timesyncd") { // that its package enables it is not relied on
					m.put(timesyncd, "[Unit]\nAlias=not this one\n[Install]\nWantedBy=sysinit.target\nAlias=dbus-org.freedesktop.timesync1.service\n", 0o644)
				}
			}
		}, on: "systemd-timesyncd.service", apt: true, made: []string{timesyncdWants, timesyncdAlias}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			c.prepare(m)
			r := m.bake()
			s := timeSync(m.Target)
			if s.on != (c.on != "") || s.on && s.unit != c.on {
				t.Errorf("%+v, want %q enabled", s, c.on)
			}
			if apt := strings.Contains(strings.Join(m.Calls(), "\n"), target.AptGet); apt != c.apt {
				t.Errorf("the package manager was asked: %v", apt)
			}
			// The report says what was done, also after a bake that has found it done.
			if r.Time == nil || r.Time.Service != c.on || !slices.Equal(r.Time.Links, c.made) {
				t.Errorf("report: %+v, want %q by %q", r.Time, c.on, c.made)
			}
			before := snapshot(t, m.Root(), true)
			m.bake()
			if d := before.diff(snapshot(t, m.Root(), true)); d != nil {
				t.Errorf("again:\n%s", strings.Join(d, "\n"))
			}
			findings, err := Check(t.Context(), m.Target)
			m.must(err)
			if c.finding == "" && len(findings) != 0 || c.finding != "" && (len(findings) != 1 || !strings.Contains(findings[0].What, c.finding) || findings[0].Severity != Warning) {
				t.Errorf("%+v", findings)
			}
		})
	}
}

func TestTimeSyncNone(t *testing.T) {
	m := newMachine(t)
	m.must(m.Remove(timesyncdWants))
	o := m.options()
	o.Policy.TimeSync = policy.TimeSyncNone
	_, err := Run(t.Context(), m.Target, o)
	m.must(err)
	if r, err := ReadReport(m.Target); err != nil || r.Time != nil {
		t.Errorf("report: %+v, %v", r.Time, err)
	}
	if m.Exists(timesyncdWants) || m.Exists(timesyncdAlias) {
		t.Error("it was enabled")
	}
	if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) != 0 {
		t.Errorf("%+v, %v", findings, err)
	}
}

// Where packages are not ours to install, a missing client is no error.
func TestTimeSyncPresent(t *testing.T) {
	m := newMachine(t)
	m.must(m.Remove(timesyncdWants))
	m.must(m.Remove(timesyncd))
	o := m.options()
	o.Policy.Packages = policy.PackagesPresent
	_, err := Run(t.Context(), m.Target, o)
	m.must(err)
	if strings.Contains(strings.Join(m.Calls(), "\n"), target.AptGet) {
		t.Error("the package manager was asked")
	}
	findings, err := Check(t.Context(), m.Target)
	m.must(err)
	if got := ids(findings); !slices.Equal(got, []string{"time-service /etc/systemd/system"}) {
		t.Errorf("%+v", findings)
	}
}

// What the step made is taken back with the rest.
func TestTimeSyncUndone(t *testing.T) {
	m := newMachine(t)
	m.must(m.Remove(timesyncdWants))
	before := snapshot(t, m.Root(), false)
	m.effective["AuthenticationMethods"] = "publickey"
	if _, err := Run(t.Context(), m.Target, m.options()); err == nil {
		t.Fatal("no error")
	}
	if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
		t.Errorf("not restored:\n%s", strings.Join(d, "\n"))
	}
}

func TestInstallLinks(t *testing.T) {
	got := installLinks("x.service", "/lib/systemd/system/x.service", []byte("[Unit]\nWantedBy=no.target\n[Install]\n# WantedBy=no.target\nWantedBy=a.target b.target\nRequiredBy = c.target\nAlias=y.service\nAlso=z.service\n"))
	const etc, file = "/etc/systemd/system/", "/lib/systemd/system/x.service"
	want := []link{{etc + "a.target.wants/x.service", file}, {etc + "b.target.wants/x.service", file}, {etc + "c.target.requires/x.service", file}, {etc + "y.service", file}}
	if !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}
