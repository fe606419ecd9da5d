// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"fmt"
	"path"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// unitDirs are the directories of units, the one that wins first.
var unitDirs = []string{target.SystemdUnitDir, "/run/systemd/system", target.SystemdVendorDir}

// unitProblems looks at how the units of sshd start it. Our drop-ins replace the
// distribution's start, so it must be that one. A template need not be there,
// and may be masked.
func (f *facts) unitProblems(t *target.Target) problems {
	file, masked := unitFile(t, f.sshService)
	switch {
	case masked:
		return problems{{
			id: "ssh-masked", path: file, what: "masked", err: ErrUnit,
			fix: "run: systemctl unmask " + f.sshService,
		}}
	case file == "":
		return problems{{
			id: "ssh-missing", path: f.sshUnit, what: "is missing", err: ErrUnit,
			fix: "reinstall " + f.sshPackage + "; sshd must be started by systemd",
		}}
	}
	ps := f.startProblems(t, f.sshService, file, f.sshdStart)
	for _, unit := range f.sshTemplates {
		if file, masked := unitFile(t, unit); file != "" && !masked {
			ps = append(ps, f.startProblems(t, unit, file, f.sshdInetd)...)
		}
	}
	return ps
}

// unitFile is the file that systemd takes for a unit; empty: there is none.
func unitFile(t *target.Target, unit string) (file string, masked bool) {
	for _, d := range unitDirs {
		if p := path.Join(d, unit); t.Exists(p) {
			dest, err := t.Readlink(p)
			return p, err == nil && dest == "/dev/null"
		}
	}
	return "", false
}

// startProblems compares how a unit starts sshd with how the distribution does.
func (f *facts) startProblems(t *target.Target, unit, file, start string) problems {
	var ps problems
	want := strings.TrimSpace(start + " " + f.sshdRest)
	b, err := t.ReadFile(file)
	starts := execStarts(string(b))
	if err != nil || len(starts) != 1 || starts[0] != want {
		ps = append(ps, problem{
			id: "ssh-unit", path: file, what: fmt.Sprintf("ExecStart is %q, want %q", strings.Join(starts, "; "), want), err: ErrUnit,
			fix: "restore it; put options of your own into /etc/ssh/sshd_config.d",
		})
	}
	for _, d := range unitDirs {
		dir := path.Join(d, unit+".d")
		entries, err := t.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			p := path.Join(dir, e.Name())
			if p == dropInOf(unit, sshUnitTemplate) || !strings.HasSuffix(p, ".conf") {
				continue
			}
			b, err := t.ReadFile(p)
			if err == nil && len(execStarts(string(b))) > 0 {
				ps = append(ps, problem{
					id: "ssh-unit", path: p, what: "has an ExecStart of its own", err: ErrUnit,
					fix: "remove it; put options of your own into /etc/ssh/sshd_config.d",
				})
			}
		}
	}
	return ps
}

// socketLinks are the links by which the administrator, a preset or a package
// has ssh.socket started. From Ubuntu 22.10 on ssh.service requires it, and would
// not start once it is masked.
func (f *facts) socketLinks(t *target.Target) ([]string, error) {
	entries, err := t.ReadDir(target.SystemdUnitDir)
	if err != nil {
		return nil, missingIsFine(err)
	}
	var links []string
	for _, e := range entries {
		if kind := path.Ext(e.Name()); kind != ".wants" && kind != requires {
			continue
		}
		p := path.Join(target.SystemdUnitDir, e.Name(), f.sshSocket)
		if _, err := t.Readlink(p); err == nil {
			links = append(links, p)
		}
	}
	return links, nil
}

// requires ends the name of a directory of units that another cannot do without.
const requires = ".requires"

// execStarts are the values of ExecStart in a unit file. An empty one clears
// those before it, and counts as a change in a drop-in.
func execStarts(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart"); ok {
			if value, ok := strings.CutPrefix(strings.TrimSpace(value), "="); ok {
				out = append(out, strings.TrimSpace(value))
			}
		}
	}
	return out
}
