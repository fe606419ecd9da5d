// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Closed returns why SSH is closed on this machine; "" while it is not.
func Closed(t *target.Target) string {
	b, err := t.ReadFile(target.ClosedBanner)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// opening are the findings with which a login may succeed without a code.
var opening = []string{"pam-service", "pam-block", "pam-nullok", "pam-permit", "pam-line", "pam-tally", "pam-extra", "pam-damaged", "sshd-effective"}

// gate closes SSH while something is left with which a login may succeed without a
// code, and opens it again once nothing is. Where the code cannot be asked for, it
// says so before the login.
func (r *repairer) gate(ctx context.Context) error {
	var open, other []string
	for _, f := range r.done.Left {
		line := f.ID + " " + f.Path // no users: every client sees it
		switch {
		case slices.Contains(opening, f.ID):
			open = append(open, line)
		case f.ID == "pam-module":
			other = append(other, line)
		}
	}
	const remedy = "To end this, as root on the console: totp-agent check --repair (it prints the remedy for what it cannot repair; apply it and run the command again)\n" +
		"What it means: docs/recovery.md#ssh-is-closed in the repository packer-plugin-totp\n"
	switch {
	case len(open) > 0:
		r.done.Closed = true
		return r.close(ctx, "totp-agent: SSH is closed: a login could succeed without a code.\n"+strings.Join(open, "\n")+"\n"+remedy, true)
	case len(other) > 0:
		return r.close(ctx, "totp-agent: no user can log in with a code: a file is missing.\n"+strings.Join(other, "\n")+"\n"+remedy, false)
	}
	if r.unsure { // a program that was stopped, at a shutdown say, opens nothing
		return nil
	}
	return r.open(ctx)
}

// close shows a text before each login, and denies all users where asked to. sshd
// takes both from a file that our settings include. Where it does not, it is
// stopped; sessions go on.
func (r *repairer) close(ctx context.Context, text string, deny bool) error {
	conf := "Banner " + target.ClosedBanner + "\n"
	if deny {
		conf = "DenyUsers *\n" + conf
	}
	old, err := r.t.ReadFile(target.ClosedConf)
	if err == nil && string(old) == conf && Closed(r.t) == strings.TrimSpace(text) {
		if r.t.Exists(target.ClosedUnit) { // something else may have started it since
			return r.stop(ctx, deny)
		}
		return nil
	}
	if deny && stateDirIsOurs(r.t) { // a boot empties /run
		if err := r.t.WriteFile(target.ClosedMark, nil, 0o600); err != nil {
			fmt.Fprintf(r.Log, "repair: %v\n", err)
		}
	}
	if err := r.t.Mkdir(target.RunDir, 0o755); err != nil {
		return err
	}
	for _, f := range []struct{ path, text string }{{target.ClosedBanner, text}, {target.ClosedConf, conf}} {
		if err := r.t.WriteFile(f.path, []byte(f.text), 0o644); err != nil {
			return errors.Join(err, r.stop(ctx, deny))
		}
	}
	if r.t.SELinux() {
		if err := r.t.Label(ctx, target.SSHDRunType, target.ClosedBanner, target.ClosedConf); err != nil {
			return errors.Join(err, r.t.Remove(target.ClosedConf), r.stop(ctx, deny))
		}
	}
	if string(old) != conf { // else sshd reads the banner at each connection
		if err := r.reload(ctx); err != nil || deny && !r.denies(ctx) {
			err = errors.Join(err, r.stop(ctx, deny))
			r.say(text)
			return err
		}
	}
	r.say(text)
	return nil
}

// say tells the journal and the console.
func (r *repairer) say(text string) {
	fmt.Fprint(r.Log, text)
	if r.Console != nil {
		_, _ = fmt.Fprint(r.Console, "\r\n"+strings.ReplaceAll(text, "\n", "\r\n"))
	}
}

// denies reports whether sshd takes the file that denies all users.
func (r *repairer) denies(ctx context.Context) bool {
	s, err := openSSHD(ctx, r.t)
	if err != nil {
		return false
	}
	defer s.Close()
	ls, err := logins(ctx, r.t, r.facts.policy.SSHD)
	if err != nil || len(ls) == 0 {
		return false
	}
	got, err := s.effective(ctx, ls[0].connection)
	return err == nil && slices.Contains(strings.Fields(got["denyusers"]), "*")
}

// stop stops the sshd that listens.
func (r *repairer) stop(ctx context.Context, deny bool) error {
	if !deny || !r.t.Booted() {
		return nil
	}
	if err := r.t.WriteFile(target.ClosedUnit, []byte(r.facts.sshService+"\n"), 0o644); err != nil {
		fmt.Fprintf(r.Log, "repair: %v\n", err)
	}
	fmt.Fprintf(r.Log, "repair: %s does not take the file that denies all users, and is stopped\n", r.facts.sshService)
	_, err := r.t.Run(ctx, target.Systemctl, "--no-block", "stop", r.facts.sshService)
	return err
}

// open undoes close.
func (r *repairer) open(ctx context.Context) error {
	var errs []error
	if r.full { // else sshd was not asked
		errs = append(errs, missingIsFine(r.t.Remove(target.ClosedMark)))
	}
	if !r.t.Exists(target.ClosedConf) && !r.t.Exists(target.ClosedBanner) && !r.t.Exists(target.ClosedUnit) {
		return errors.Join(errs...)
	}
	stopped := r.t.Exists(target.ClosedUnit)
	for _, name := range []string{target.ClosedConf, target.ClosedBanner, target.ClosedUnit} {
		errs = append(errs, missingIsFine(r.t.Remove(name)))
	}
	fmt.Fprintln(r.Log, "repair: SSH is open again")
	if stopped && r.t.Booted() {
		_, err := r.t.Run(ctx, target.Systemctl, "--no-block", "start", r.facts.sshService)
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, r.reload(ctx))...)
}

// reload has an sshd that runs read its configuration again. At boot it waits for
// the agent, which must not wait for it.
func (r *repairer) reload(ctx context.Context) error {
	if !r.t.Booted() {
		return nil
	}
	argv := []string{target.Systemctl, "try-reload-or-restart", r.facts.sshService}
	if r.Boot {
		argv = slices.Insert(argv, 1, "--no-block")
	}
	_, err := r.t.Run(ctx, argv...)
	return err
}
