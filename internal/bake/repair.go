// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// RepairOptions say how to repair.
type RepairOptions struct {
	Log     io.Writer // one line for each change and for each thing that is left; nil: none
	Console io.Writer // where it is said that SSH is closed; nil: nowhere

	// Running: sshd runs or will, so that what cannot be repaired is to close it.
	Running bool

	// Boot: sshd has not started. sshd is asked only if a file of ours is not as it was
	// written, or if SSH was closed before the boot.
	Boot bool
}

// Repaired is what a repair did.
type Repaired struct {
	Changed []string  // paths
	Left    []Finding // critical ones that it could not put right
	Closed  bool      // SSH is closed because of them
}

// ErrLeft ends a repair that could not put everything right.
var ErrLeft = errors.New("the files of the SSH login could not be repaired; apply the remedies above")

// Repair puts back what a login depends on, on a system that was baked: the PAM
// service file, which an update of the package, a full disk or a mistake may have
// replaced, and which Linux-PAM would answer by asking for a password; our files of
// sshd; and who may write them. Any other system is left alone.
//
// A file with an entry of an administrator's that lets a user in without a code is
// put aside, to [target.PAMReplaced], and replaced too. On the running system, what
// cannot be repaired closes SSH for new logins until a repair finds nothing left.
func Repair(ctx context.Context, t *target.Target, o RepairOptions) (*Repaired, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	r := &repairer{RepairOptions: o, t: t, full: !o.Boot || o.Running && t.Exists(target.ClosedMark)}
	f, err := repairFacts(t)
	if !f.baked {
		return &r.done, nil
	}
	if err != nil {
		return &r.done, err
	}
	r.facts = f
	var bad error
	r.locked(func() {
		bad = r.pam(ctx)
		err = r.modes()
		if err := r.sweep(); err != nil { // litter opens no login
			fmt.Fprintf(o.Log, "repair: sweep: %v\n", err)
		}
	})
	err = errors.Join(err, r.sshd(ctx))
	r.findings(ctx)
	// A package manager may have replaced the service file since: that can be repaired.
	for n := 0; n < 3 && bad == nil && slices.ContainsFunc(r.done.Left, func(f Finding) bool { return slices.Contains(opening, f.ID) && f.ID != "sshd-effective" }); n++ {
		r.locked(func() { bad = r.pam(ctx) })
		r.findings(ctx)
	}
	err = errors.Join(bad, err)
	if o.Running {
		r.locked(func() { err = errors.Join(err, r.gate(ctx)) })
	}
	for _, l := range r.done.Left {
		fmt.Fprintf(o.Log, "repair: %s: %s: %s; %s\n", l.ID, l.Path, l.What, l.Fix)
	}
	if len(r.done.Left) > 0 {
		err = errors.Join(err, ErrLeft)
	}
	return &r.done, err
}

// locked calls write with the lock of the state directory: an agent that is at work, a
// second hook, say, may be doing the same. If that one has the lock, the files are
// written still. To ask sshd takes seconds on a server with many users, and must not
// keep a reset or an enrollment waiting.
func (r *repairer) locked(write func()) {
	if unlock, err := r.t.Lock(target.StateDir); err == nil {
		defer unlock()
	}
	write()
}

type repairer struct {
	RepairOptions
	t      *target.Target
	full   bool // sshd is asked
	unsure bool // it did not say what it would do
	facts  *facts
	done   Repaired
	plan   *plan // nil where sshd was not asked
}

// repairFacts are the facts of a machine by its distribution alone: an upgrade of
// the whole system may have made it one that no bake knows.
func repairFacts(t *target.Target) (*facts, error) {
	f := &facts{policy: new(policy.Policy).WithDefaults()}
	f.baked = t.Exists(target.ImagePolicy)
	o, err := t.OS()
	if err != nil {
		return f, err
	}
	i := slices.IndexFunc(systems, func(s system) bool { return s.id == o.ID })
	if j := slices.IndexFunc(systems, func(s system) bool { return s.matches(o) }); j >= 0 {
		i = j
	}
	if i < 0 {
		return f, fmt.Errorf("%s: ID %q: %w", target.OSRelease, o.ID, ErrSystem)
	}
	f.system = systems[i]
	if _, err := f.pamKept(t); err == nil {
		f.baked = true
	}
	if b, err := t.ReadFile(target.ImagePolicy); err == nil {
		if p, err := policy.Parse(policy.Image, target.ImagePolicy, b); err == nil {
			f.policy = p.WithDefaults()
		}
	}
	f.arch, err = t.Arch()
	return f, err
}

func (r *repairer) changed(name, remark string) {
	if remark != "" {
		remark = ": " + remark
	}
	r.done.Changed = append(r.done.Changed, name)
	fmt.Fprintf(r.Log, "repair: %s: repaired%s\n", name, remark)
}

// sweep removes what a repair that was killed has left beside the files that it writes. A
// younger file may be that of another command.
func (r *repairer) sweep() error {
	var errs []error
	for _, dir := range []string{target.PAMDir, path.Dir(target.PAMCopy), target.SSHDir, target.SSHDDropInDir} {
		errs = append(errs, r.t.SweepOlder(dir, time.Minute))
	}
	return errors.Join(errs...)
}

// pam puts the service file and its copy right.
func (r *repairer) pam(ctx context.Context) error {
	now, want, remark, err := r.facts.pamWanted(r.t, true)
	if err != nil {
		return err
	}
	if !pamOK(r.t, now, want) {
		if remark != "" && now != "" {
			if err := r.t.WriteFile(target.PAMReplaced, []byte(now), 0o600); err != nil {
				fmt.Fprintf(r.Log, "repair: %v\n", err)
			}
		}
		if err := r.write(ctx, target.PAMService, []byte(want), pamFileMode(r.t)); err != nil {
			return err
		}
		r.changed(target.PAMService, remark)
	}
	// Where /usr is read-only, check says that the copy is not as it should be.
	if keepPAM(r.t, want) {
		if err := r.write(ctx, target.PAMCopy, []byte(want), pamMode); err != nil {
			fmt.Fprintf(r.Log, "repair: %v\n", err)
		} else {
			fmt.Fprintf(r.Log, "repair: %s: copied from %s\n", target.PAMCopy, target.PAMService)
		}
	}
	return nil
}

// write replaces whatever has the name.
func (r *repairer) write(ctx context.Context, name string, data []byte, mode fs.FileMode) error {
	fi, err := r.t.Lstat(name)
	switch {
	case err != nil || fi.Mode().IsRegular():
	case fi.Mode()&fs.ModeSymlink != 0:
		err = r.t.Remove(name)
	default:
		var aside string
		if aside, err = moveAside(r.t, name); err == nil {
			fmt.Fprintf(r.Log, "repair: %s: moved to %s\n", name, aside)
		}
	}
	if missingIsFine(err) != nil {
		return err
	}
	if dir := path.Dir(name); !r.t.IsDir(dir) {
		if err := r.t.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	if err := r.t.WriteFile(name, data, mode); err != nil {
		return err
	}
	if r.t.SELinux() {
		return r.t.Relabel(ctx, name)
	}
	return nil
}

// modes closes to others what only root may write, and the directories of secrets.
func (r *repairer) modes() error {
	var errs []error
	for _, p := range writableProblems(r.t) {
		fi, err := r.t.Stat(p.path)
		if err == nil {
			err = r.own(p.path, fi, fi.Mode().Perm()&^0o022)
		}
		errs = append(errs, err)
	}
	for _, d := range dirs {
		fi, err := r.t.Lstat(d.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err = r.t.Mkdir(d.path, d.mode); err == nil {
				r.changed(d.path, "")
			}
		case err == nil && !fi.IsDir():
			continue // check reports it, and no user can log in
		case err == nil && !owned(fi) && (d.path == target.StateDir || d.path == target.PAMStateDir):
			continue // its owner may have put files there: enroll refuses it, and says so
		case err == nil && (!owned(fi) || fi.Mode().Perm() != d.mode):
			err = r.own(d.path, fi, d.mode)
		}
		errs = append(errs, err)
	}
	if r.Running {
		fi, err := r.t.Lstat(target.PAMTallyDir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = r.t.Mkdir(target.PAMTallyDir, tallyMode)
		case err == nil && fi.IsDir() && tallyOpen(fi):
			err = r.own(target.PAMTallyDir, fi, tallyMode)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r *repairer) own(name string, fi fs.FileInfo, mode fs.FileMode) error {
	real, err := r.t.Resolve(name)
	if err != nil {
		return err
	}
	if !owned(fi) {
		if err := r.t.Lchown(real, 0, 0); err != nil {
			return err
		}
	}
	if err := r.t.Chmod(real, mode); err != nil {
		return err
	}
	r.changed(name, "")
	return nil
}

// sshd puts our files of sshd right, and the drop-ins of the units that start it.
func (r *repairer) sshd(ctx context.Context) error {
	if names, known := replaced(r.t); len(names) > 0 || !known {
		r.full = true
	}
	if name, err := rootExempt(r.t, r.facts.policy.SSHD); err != nil || name != "" {
		r.full = true // a rule for a new name of root's
	}
	if !r.full || !r.t.IsRegular(target.SSHD) {
		return nil
	}
	p, err := r.facts.plan(ctx, r.t)
	if err != nil {
		return err
	}
	r.plan = p
	var errs []error
	changed, units := false, false
	r.locked(func() {
		for _, f := range r.facts.loginFiles(p) {
			same, err := sameFile(r.t, f.path, f.data, f.mode)
			if same && err == nil {
				continue
			}
			if dest, err := r.t.Readlink(f.path); err == nil && dest == "/dev/null" {
				continue // masked
			}
			if err := r.write(ctx, f.path, f.data, f.mode); err != nil {
				errs = append(errs, err)
				continue
			}
			r.changed(f.path, "")
			changed, units = true, units || f.unit
		}
		if sums := r.facts.loginSums(p); len(errs) == 0 && stateDirIsOurs(r.t) {
			if same, err := sameFile(r.t, target.LoginSums, sums, 0o600); !same || err != nil {
				errs = append(errs, r.t.WriteFile(target.LoginSums, sums, 0o600))
			}
		}
	})
	if units && r.t.Booted() {
		_, err := r.t.Run(ctx, target.Systemctl, "daemon-reload")
		errs = append(errs, err)
	}
	if changed {
		errs = append(errs, r.reload(ctx))
	}
	return errors.Join(errs...)
}

// loginFiles are the files of a plan that decide about a login.
func (f *facts) loginFiles(p *plan) []file {
	units := append([]string{f.sshService}, f.sshTemplates...)
	var files []file
	for _, pf := range p.files {
		ofUnit := slices.ContainsFunc(units, func(u string) bool { return path.Dir(pf.path) == path.Join(target.SystemdUnitDir, u+".d") })
		if !pf.unit || ofUnit {
			files = append(files, pf)
		}
	}
	return files
}

// findings are what is still not as it should be.
func (r *repairer) findings(ctx context.Context) {
	r.done.Left = nil
	c := &checker{t: r.t, facts: r.facts}
	c.pam()
	if r.plan != nil {
		// A configuration that sshd cannot read, while it is being edited say, is not
		// what it works with.
		err := c.sshd(ctx)
		if err != nil {
			fmt.Fprintf(r.Log, "repair: %v\n", err)
		}
		r.unsure = err != nil || slices.ContainsFunc(c.findings, func(f Finding) bool { return f.ID == "sshd-test" || f.ID == "sshd-config" })
	}
	for _, f := range c.findings {
		if f.Severity == Critical {
			f.Fix = afterRepair(f.Fix)
			r.done.Left = append(r.done.Left, f)
		}
	}
}

// A Watch looks at the files that a repair looks at.
type Watch struct {
	t     *target.Target
	files []string
	lists []string // directories of which each file counts
}

// NewWatch returns a watch of a machine.
func NewWatch(t *target.Target) *Watch {
	w := &Watch{t: t,
		files: []string{target.PAMDir, target.PAMService, target.PAMCopy, target.SSHDir, target.SSHDConfig, target.Passwd},
		lists: []string{target.SSHDDropInDir, target.PolicyDir},
	}
	if f, err := repairFacts(t); err == nil {
		for _, dir := range target.PAMModuleDirs[f.arch] {
			w.files = append(w.files, path.Join(dir, target.PAMModule), path.Join(dir, target.PAMTally))
		}
		for _, unit := range append([]string{f.sshService}, f.sshTemplates...) {
			w.lists = append(w.lists, path.Join(target.SystemdUnitDir, unit+".d"))
		}
	}
	return w
}

// Stamp is another one after any change of one of the files.
func (w *Watch) Stamp() string {
	var b strings.Builder
	note := func(name string, content bool) {
		fi, err := w.t.Lstat(name)
		if err != nil {
			b.WriteString(name + " -\n")
			return
		}
		uid, gid, _ := target.Owner(fi)
		fmt.Fprintln(&b, name, fi.Mode(), uid, gid)
		if content {
			fmt.Fprintln(&b, fi.Size(), fi.ModTime().UnixNano())
		}
	}
	for _, name := range w.files {
		note(name, true)
	}
	for _, d := range dirs {
		note(d.path, false) // the content changes at each login
	}
	for _, dir := range w.lists {
		entries, _ := w.t.ReadDir(dir)
		for _, e := range entries {
			note(path.Join(dir, e.Name()), true)
		}
	}
	return b.String()
}
