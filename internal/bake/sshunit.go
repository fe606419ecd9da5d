// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/systemd"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// unitDirs are the directories in which the units of other programs are looked
// for, the one that wins first.
var unitDirs = []string{target.SystemdUnitDir, "/run/systemd/system", target.SystemdVendorDir}

// unitProblems looks at how the units of sshd start it. Our drop-ins replace the
// distribution's start, so it must be that one. A template need not be there,
// and may be masked.
func (f *facts) unitProblems(t *target.Target) problems {
	s, err := startBy(t, f.sshService)
	switch {
	case s != nil && s.Unit.Masked:
		return problems{{
			id: "ssh-masked", path: s.Unit.File, what: "masked", err: ErrUnit,
			fix: "run: systemctl unmask " + f.sshService,
		}}
	case s != nil && s.Unit.File == "":
		return problems{{
			id: "ssh-missing", path: f.sshUnit, what: "is missing", err: ErrUnit,
			fix: "reinstall " + f.sshPackage + "; sshd must be started by systemd",
		}}
	}
	ps := f.startProblems(t, f.sshService, s, err, f.sshdStart)
	for _, unit := range f.sshTemplates {
		s, err := startBy(t, unit)
		if s == nil || s.Unit.File != "" && !s.Unit.Masked {
			ps = append(ps, f.startProblems(t, unit, s, err, f.sshdInetd)...)
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

// otherFiles are the settings of a service by which sshd, and what it calls, see
// other files than those that bake and check have looked at, or run as another
// user.
var otherFiles = []string{
	"RootDirectory", "RootImage", "RootHash", "BindPaths", "BindReadOnlyPaths", "MountImages", "ExtensionImages", "ExtensionDirectories",
	"TemporaryFileSystem", "InaccessiblePaths", "InaccessibleDirectories", "User", "DynamicUser", "PAMName", "JoinsNamespaceOf",
}

// startProblems compares how a unit starts sshd with how the distribution does,
// our own drop-in aside.
func (f *facts) startProblems(t *target.Target, unit string, s *Start, err error, start string) problems {
	const fix = "restore it; put settings of your own into " + target.SSHDDropInDir
	if err != nil {
		return problems{{id: "ssh-unit", path: unit, what: err.Error(), err: ErrUnit, fix: fix}}
	}
	var ps problems
	add := func(file, what, fix string) {
		ps = append(ps, problem{id: "ssh-unit", path: file, what: what, err: ErrUnit, fix: fix})
	}
	ours := dropInOf(unit, sshUnitTemplate)
	want := strings.TrimSpace(start + " " + f.sshdRest)
	var starts []string
	foreign := map[string]bool{}
	for _, c := range s.Unit.All("Service", "ExecStart") {
		switch c.File {
		case ours:
		case s.Unit.File:
			starts = append(starts, c.Value)
		default:
			foreign[c.File] = true
		}
	}
	if len(starts) != 1 || starts[0] != want {
		add(s.Unit.File, fmt.Sprintf("ExecStart is %q, want %q", strings.Join(starts, "; "), want), fix)
	}
	for _, file := range s.Unit.DropIns {
		if foreign[file] {
			add(file, "has an ExecStart of its own", f.purge(t, file, "remove it; put settings of your own into "+target.SSHDDropInDir))
		}
	}
	for _, c := range s.Unit.All("Service", otherFiles...) {
		if !slices.Contains([]string{"", "no", "root"}, c.Value) && c.File != ours {
			add(c.File, fmt.Sprintf("%s=%s: not allowed in the unit of sshd", c.Key, c.Value), "remove it")
		}
	}
	// Of two drop-ins of one name systemd reads one: ours, it must be.
	for _, file := range slices.Concat(s.Unit.DropIns, s.Unit.Hidden) {
		if path.Base(file) == path.Base(ours) && file != ours {
			add(file, "has the name of "+ours+", of which systemd reads one only", "rename it")
		}
	}
	return append(ps, f.optionProblems(s)...)
}

// started checks that sshd starts as our drop-ins say, and with nothing else. It
// is for a machine on which they are written.
func (f *facts) started(t *target.Target) (starts []*Start, ps problems) {
	units, commands := append([]string{f.sshService}, f.sshTemplates...), []string{f.sshdStart}
	for range f.sshTemplates {
		commands = append(commands, f.sshdInetd)
	}
	for i, unit := range units {
		s, err := startBy(t, unit)
		if err != nil || s.Unit.File == "" || s.Unit.Masked {
			continue // unitProblems reports it, where it is one
		}
		starts = append(starts, s)
		if want := f.wantedCommand(commands[i]); s.Command != want {
			ps = append(ps, problem{
				id: "ssh-start", path: unit, what: fmt.Sprintf("starts %q, want %q", s.Command, want), err: ErrUnit,
				fix: bakeAgain, degraded: s.Args != nil, // what sshd does with them, it is asked
			})
		}
	}
	return starts, ps
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

// foreignDropIns are the drop-ins of one of our own units, of which a bake makes
// none. Those of the distribution for all units of a type are not meant, nor those that
// set nothing but what an administrator may set for the delivery.
func foreignDropIns(t *target.Target, unit string) ([]string, error) {
	u, err := systemd.Load(t, unit)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(u.DropIns, func(file string) bool {
		all := strings.TrimPrefix(path.Ext(unit), ".") + ".d"
		return path.Base(path.Dir(file)) == all && (strings.HasPrefix(file, "/usr/lib/") || strings.HasPrefix(file, "/lib/")) ||
			unit == target.DeliverService && !slices.ContainsFunc(u.From(file), func(s systemd.Setting) bool { return !deliverSetting(s) })
	}), nil
}

// deliverSetting reports whether a setting is an environment of variables that the
// delivery passes on to its sender.
func deliverSetting(s systemd.Setting) bool {
	return s.Section == "Service" && s.Key == "Environment" && !slices.ContainsFunc(systemd.Split(s.Value), func(w string) bool {
		name, _, ok := strings.Cut(w, "=")
		return !ok || !slices.Contains(target.DeliverEnv, name)
	})
}
