// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/systemd"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// running asks the systemd of a machine that runs how it starts sshd, and compares
// that with the files: what it has read may be older than they are, or come from
// where no file is.
func (c *checker) running(ctx context.Context) {
	if !c.t.Booted() {
		return
	}
	units := append([]string{c.facts.sshService}, c.facts.sshTemplates...)
	for _, unit := range units {
		s, err := startBy(c.t, unit)
		if err != nil || s.Unit.File == "" || s.Unit.Masked {
			continue // reported with the units
		}
		name := unit
		if template, ok := strings.CutSuffix(unit, "@.service"); ok {
			name = template + "@totp-check.service" // an instance shows what all of them get
		}
		out, err := c.t.Run(ctx, target.Systemctl, "show", "--property=Id,FragmentPath,DropInPaths,ExecStart,NeedDaemonReload,MainPID", name)
		if err != nil {
			c.add(Degraded, "ssh-systemd", unit, err.Error(), "run: systemctl daemon-reload")
			continue
		}
		c.compare(s, shownProperties(string(out)))
	}
}

// shownProperties reads the output of systemctl show.
func shownProperties(out string) map[string]string {
	m := map[string]string{}
	for line := range strings.Lines(out) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok {
			m[key] = value
		}
	}
	return m
}

// shownCommand is the command line in the form of systemctl show.
func shownCommand(value string) string {
	_, after, _ := strings.Cut(value, "argv[]=")
	command, _, _ := strings.Cut(after, " ; ignore_errors=")
	return command
}

// compare reports what systemd has loaded otherwise than the files say.
func (c *checker) compare(s *Start, shown map[string]string) {
	const reload = "run: systemctl daemon-reload"
	unit := s.Unit.Name
	want := strings.Join(systemd.Split(strings.TrimPrefix(s.Command, "-")), " ")
	if got := shownCommand(shown["ExecStart"]); got != want {
		c.add(Critical, "ssh-systemd", unit, fmt.Sprintf("systemd starts %q, and its files say %q", got, want), reload)
	}
	files := strings.Fields(shown["DropInPaths"])
	for _, f := range append(files, shown["FragmentPath"]) {
		if f != "" && !c.known(s.Unit, f) {
			c.add(Critical, "ssh-systemd", f, "is a file of "+unit+" that systemd has loaded and no directory of units has", reload)
		}
	}
	for _, f := range s.Unit.DropIns {
		if !slices.ContainsFunc(files, func(other string) bool { return c.same(f, other) }) && !strings.Contains(path.Dir(f), "@") {
			c.add(Degraded, "ssh-systemd", f, "is a file of "+unit+" that systemd has not loaded", reload)
		}
	}
	if shown["NeedDaemonReload"] == "yes" {
		c.add(Degraded, "ssh-systemd", unit, "has changed since systemd loaded it", reload)
	}
	// sshd shows its arguments as its title.
	if pid := shown["MainPID"]; pid != "" && pid != "0" {
		if title, err := c.t.ReadFile("/proc/" + pid + "/cmdline"); err == nil &&
			!strings.Contains(strings.ReplaceAll(string(title), "\x00", " "), "-f "+target.SSHDMain) {
			c.add(Warning, "ssh-restart", unit, "runs with other arguments than it would be started with", "run: systemctl restart "+unit)
		}
	}
}

// known reports whether a file that systemd names is one of the unit's.
func (c *checker) known(u *systemd.Unit, file string) bool {
	return slices.ContainsFunc(append(slices.Clone(u.DropIns), u.File), func(f string) bool { return c.same(f, file) })
}

// same reports whether two names lead to one file: /lib may be a link, and an alias
// one too.
func (c *checker) same(a, b string) bool {
	x, err1 := c.t.Stat(a)
	y, err2 := c.t.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}
