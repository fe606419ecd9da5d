// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// timeServices are the units of the programs that keep a clock right by NTP, the
// one that is enabled first where several are there. A link is another's name.
var timeServices = []struct{ name, unit string }{
	{"systemd-timesyncd", "systemd-timesyncd.service"},
	{"chrony", "chrony.service"},
	{"chrony", "chronyd.service"},
	{"NTPsec", "ntpsec.service"},
	{"ntp", "ntp.service"},
	{"ntp", "ntpd.service"},
	{"OpenNTPD", "openntpd.service"},
}

// A timeService is one of them, as a machine has it.
type timeService struct {
	name, unit, path       string
	installed, on, blocked bool // blocked: masked
}

// timeSync is the service that keeps the machine's clock right, or could: the
// first that is enabled, or that is installed, or that is masked.
func timeSync(t *target.Target) (best timeService) {
	for _, known := range timeServices {
		s := timeService{name: known.name, unit: known.unit}
		for _, d := range unitDirs {
			p := path.Join(d, s.unit)
			if dest, err := t.Readlink(p); err == nil && dest == "/dev/null" {
				s.blocked = true
				break
			}
			if t.IsRegular(p) {
				s.path, s.installed = p, true
				break
			}
		}
		s.on = s.installed && enabled(t, s.unit)
		if s.on {
			return s
		}
		if best.name == "" && s.blocked || !best.installed && s.installed {
			best = s
		}
	}
	return best
}

// enabled tells whether something that starts wants a unit.
func enabled(t *target.Target, unit string) bool {
	for _, d := range unitDirs {
		entries, _ := t.ReadDir(d)
		for _, e := range entries {
			ext := path.Ext(e.Name())
			if (ext == ".wants" || ext == ".requires") && t.Exists(path.Join(d, e.Name(), unit)) {
				return true
			}
		}
	}
	return false
}

// timePackages are the packages that the machine lacks for its clock.
func (b *baker) timePackages() []string {
	if b.facts.policy.TimeSync == policy.TimeSyncNone {
		return nil
	}
	if s := timeSync(b.t); s.installed || s.blocked || b.facts.timePackage == "" {
		return nil
	}
	return []string{b.facts.timePackage}
}

// time makes sure that an NTP client starts with the machine.
func (b *baker) time(context.Context) (string, error) {
	if b.facts.policy.TimeSync == policy.TimeSyncNone {
		return "left alone, as the policy says", nil
	}
	s := timeSync(b.t)
	b.clockKept = &ReportTime{Links: []string{}}
	if s.installed {
		b.clockKept.Service = s.unit
	}
	switch {
	case s.on:
		return s.name + " is enabled", nil
	case s.blocked:
		return s.unit + " is masked, and was left so; nothing may keep the clock right", nil
	case !s.installed:
		return "no NTP client is installed; a code is refused where the clock is wrong by half a minute", nil
	}
	text, err := b.t.ReadFile(s.path)
	if err != nil {
		return "", err
	}
	for _, l := range installLinks(s.unit, s.path, text) {
		made, err := b.journal.symlink(l.dest, l.path)
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.unit, err)
		}
		if made {
			b.clockKept.Links = append(b.clockKept.Links, l.path)
		}
	}
	return s.name + " was installed, and is enabled now", nil
}

// installLinks are the links that systemctl enable makes for a unit, as the
// section [Install] of its file says, systemd.unit(5).
func installLinks(unit, file string, text []byte) []link {
	var links []link
	section := ""
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		line := strings.TrimSpace(sc.Text())
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Install]" {
			continue
		}
		for _, name := range strings.Fields(value) {
			switch strings.TrimSpace(key) {
			case "WantedBy":
				links = append(links, link{path.Join(target.SystemdUnitDir, name+".wants", unit), file})
			case "RequiredBy":
				links = append(links, link{path.Join(target.SystemdUnitDir, name+".requires", unit), file})
			case "Alias":
				links = append(links, link{path.Join(target.SystemdUnitDir, name), file})
			}
		}
	}
	return links
}

// clock looks at what keeps the clock right, and at the clock itself.
func (c *checker) clock() {
	s := timeSync(c.t)
	switch {
	case s.on || c.facts.policy.TimeSync == policy.TimeSyncNone:
	case s.installed:
		c.add(Warning, "time-service", s.path, "is not enabled, so that nothing keeps the clock right", "run: systemctl enable --now "+s.unit)
	case s.blocked:
		c.add(Warning, "time-service", path.Join(target.SystemdUnitDir, s.unit), "is masked, so that nothing may keep the clock right", "run: systemctl unmask "+s.unit)
	default:
		c.add(Warning, "time-service", target.SystemdUnitDir, "no NTP client is installed", "install "+c.facts.timePackage)
	}
	if now := c.t.Clock(); now.State == target.ClockUnsynchronised {
		c.add(Warning, "clock", "the system clock", "is "+now.String(), "see: timedatectl; codes are refused where it is wrong by half a minute")
	}
}
