// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A problem is something of somebody else's that keeps our files from having
// their effect. Bake refuses it, check reports it.
type problem struct {
	id   string
	path string
	what string
	fix  string
	err  error // what kind of problem

	degraded bool // it neither opens nor stops sshd

	overridden bool // a setting that has no effect beside ours
}

func (p problem) Error() string { return fmt.Sprintf("%s: %s: %v; %s", p.path, p.what, p.err, p.fix) }
func (p problem) Unwrap() error { return p.err }

type problems []problem

// err is what a bake refuses. A setting that our own overrides is left to check: some
// images come with one.
func (ps problems) err() error {
	var errs []error
	for _, p := range ps {
		if !p.overridden {
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}

// writableProblems looks at what decides about a login and is not the agent's
// own. Its mode is the distribution's; what must not be is that others write it.
func writableProblems(t *target.Target) (ps problems) {
	for _, name := range []string{target.PAMService, target.PAMDir, target.SSHDConfig, target.SSHDDropInDir, target.SSHDir} {
		if fi, err := t.Stat(name); err == nil && (!owned(fi) || fi.Mode().Perm()&0o022 != 0) {
			ps = append(ps, problem{
				id: "file-mode", path: name, what: "others than root can write it", err: ErrWritable,
				fix: "run: chown root " + name + " && chmod go-w " + name,
			})
		}
	}
	return ps
}

// The lines at the top of sshd_config. Its own Include of the whole directory
// would do, were it not for what others may put ahead of it, or into a file that
// sorts before ours: a Match block there would be the first that matches.
const (
	topComment = "# totp-agent: these settings come before everything else."
	topInclude = "Include " + target.SSHDDropIn
)

// withInclude puts the line that includes our file at the top of sshd_config,
// and nowhere else.
func withInclude(text string) string {
	if includesFirst(text) {
		return text
	}
	var rest strings.Builder
	for line := range strings.Lines(text) {
		if l := strings.TrimSpace(line); l != topComment && l != topInclude {
			rest.WriteString(line)
		}
	}
	return topComment + "\n" + topInclude + "\n\n" + strings.TrimLeft(rest.String(), "\n")
}

// includesFirst tells whether the first directive includes our file.
func includesFirst(text string) bool {
	for line := range strings.Lines(text) {
		if keyword, args := target.SSHDDirective(line); keyword != "" {
			return keyword == "include" && len(args) > 0 && args[0] == target.SSHDDropIn
		}
	}
	return false
}

// include makes sure that sshd reads our file first.
func (b *baker) include(context.Context) (string, error) {
	text, err := b.t.ReadFile(target.SSHDConfig)
	if err != nil {
		return "", fmt.Errorf("%w: %w; reinstall %s", ErrSSHDConfig, err, b.facts.sshPackage)
	}
	want := withInclude(string(text))
	if want == string(text) {
		return target.SSHDConfig + said(false), nil
	}
	fi, err := b.t.Stat(target.SSHDConfig)
	if err != nil {
		return "", err
	}
	_, err = b.journal.write(target.SSHDConfig, []byte(want), fi.Mode().Perm())
	return target.SSHDConfig + said(true), err
}

// configProblems looks for everything that sshd reads before our file.
func configProblems(t *target.Target) problems {
	b, err := t.ReadFile(target.SSHDConfig)
	if err != nil {
		return problems{{
			id: "sshd-config", path: target.SSHDConfig, what: err.Error(), err: ErrSSHDConfig,
			fix: "reinstall openssh-server",
		}}
	}
	if includesFirst(string(b)) {
		return nil
	}
	ps := mainFileProblems(string(b), allKeywords())
	entries, err := t.ReadDir(target.SSHDDropInDir)
	if missingIsFine(err) != nil {
		ps = append(ps, problem{
			id: "sshd-config", path: target.SSHDDropInDir, what: err.Error(), err: ErrSSHDConfig,
			fix: "make it a directory",
		})
	}
	for _, e := range entries {
		name := e.Name()
		if name < path.Base(target.SSHDDropIn) && name[0] != '.' && strings.HasSuffix(name, ".conf") {
			ps = append(ps, problem{
				id: "sshd-dropin-before", path: path.Join(target.SSHDDropInDir, name),
				what: "sorts before " + path.Base(target.SSHDDropIn), err: ErrSSHDConfig,
				fix: "rename it to sort after that file",
			})
		}
	}
	return ps
}

// mainFileProblems looks at the lines of sshd_config down to the one that
// includes our directory.
func mainFileProblems(text string, ours map[string]bool) problems {
	var ps problems
	n := 0
	for raw := range strings.Lines(text) {
		n++
		keyword, args := target.SSHDDirective(raw)
		if keyword == "" {
			continue
		}
		add := func(id, fix string) {
			ps = append(ps, problem{
				id: id, path: fmt.Sprintf("%s:%d", target.SSHDConfig, n),
				what: fmt.Sprintf("%q", strings.TrimSpace(raw)), err: ErrSSHDConfig, fix: fix,
			})
		}
		switch {
		case keyword == "include" && len(args) > 0 && includesDropIn(args[0]):
			return ps
		case keyword == "include":
			add("sshd-include-before", "move it below the line that includes "+includePattern)
		case keyword == "match":
			add("sshd-match-before", "move the line \"Include "+includePattern+"\" to the top of the file")
			return ps // what follows belongs to the block, another Include too
		case ours[keyword]:
			add("sshd-keyword-before", "move it below the line that includes "+includePattern)
		}
	}
	// Without the Include there is nothing that the keywords come before.
	ps = slices.DeleteFunc(ps, func(p problem) bool { return p.id == "sshd-keyword-before" })
	return append(ps, problem{
		id: "sshd-no-include", path: target.SSHDConfig, what: "does not include " + includePattern, err: ErrSSHDConfig,
		fix: "put the line \"Include " + includePattern + "\" at its top",
	})
}

const includePattern = target.SSHDDropInDir + "/*.conf"

// includesDropIn tells whether the first pattern of an Include is the
// directory that our file is first of.
func includesDropIn(pattern string) bool {
	if !strings.HasPrefix(pattern, "/") {
		pattern = path.Join(target.SSHDir, pattern) // sshd_config(5), Include
	}
	return pattern == includePattern || pattern == target.SSHDDropIn
}
