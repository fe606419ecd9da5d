// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Check compares the machine with what bake leaves, and asks sshd what it would
// do. The findings are sorted, the worst first, one for each cause. No findings: all is as
// the bake left it. The error is for a machine that cannot be looked at, such as an
// unsupported one ([ErrSystem]).
func Check(ctx context.Context, t *target.Target) ([]Finding, error) {
	c := &checker{t: t, differs: map[string]bool{}}
	if r, err := ReadReport(t); err == nil {
		c.baked = r
	}
	err := c.all(ctx)
	if errors.Is(err, ErrSystem) && c.baked != nil {
		err = fmt.Errorf("%w; it was baked as %s", err, c.baked.System.Name)
	}
	if err != nil {
		return nil, err
	}
	return arrange(c.findings), nil
}

func (c *checker) all(ctx context.Context) error {
	t := c.t
	p := c.policy()
	f, err := factsOf(t, p)
	if err != nil {
		return err
	}
	c.facts = f
	c.agent()
	c.pam()
	c.pamState()
	if why := Closed(t); why != "" && t.Exists(target.ClosedConf) {
		first, _, _ := strings.Cut(why, "\n")
		c.add(Critical, "ssh-closed", target.ClosedConf, strings.TrimPrefix(first, "totp-agent: "), repairIt)
	}
	c.config()
	c.problems(f.unitProblems(t), Critical)
	c.problems(writableProblems(t), Critical)
	c.running(ctx)
	if !t.IsRegular(target.SSHD) {
		c.add(Critical, "sshd-missing", target.SSHD, "is missing", "install "+f.sshPackage)
		return ctx.Err()
	}
	files, err := f.plan(ctx, t)
	if err != nil {
		c.add(Critical, "sshd-version", target.SSHD, err.Error(), "reinstall "+f.sshPackage)
		return ctx.Err()
	}
	c.module(ctx, files)
	c.plan(files)
	c.outdated()
	c.moduli()
	if err := c.exempt(); err != nil {
		return err
	}
	if err := c.sshd(ctx); err != nil {
		return err
	}
	c.writable()
	c.clock()
	c.channels()
	c.firewalls(ctx)
	return ctx.Err()
}

type checker struct {
	t        *target.Target
	facts    *facts
	findings []Finding

	baked   *Report         // of the last bake; nil where it cannot be read
	stale   bool            // files are as the bake wrote them, and this system needs others
	differs map[string]bool // files of the plan that are not as it has them
}

func (c *checker) add(s Severity, id, path, what, fix string) {
	c.findings = append(c.findings, Finding{ID: id, Path: path, What: what, Fix: fix, Severity: s})
}

func (c *checker) problems(ps problems, s Severity) {
	for _, p := range ps {
		severity := s
		if p.degraded {
			severity = Degraded
		}
		c.add(severity, p.id, p.path, p.what, p.fix)
	}
}

// config looks at what an sshd reads that is started by hand, with the
// distribution's main file: our settings come first there by its Include. The
// unit's sshd has a main file of ours and takes no harm, unless it cannot read the
// distribution's.
func (c *checker) config() {
	fi, err := c.t.Stat(target.SSHDConfig)
	if err == nil && !fi.Mode().IsRegular() && !fi.IsDir() {
		c.add(Critical, "sshd-config", target.SSHDConfig, "is a "+kind(fi)+", which sshd may wait for", "remove it, and reinstall "+c.facts.sshPackage)
		return
	}
	ps := configProblems(c.t)
	c.problems(ps, Degraded)
	if b, err := c.t.ReadFile(target.SSHDConfig); err == nil && len(ps) == 0 && !includesFirst(string(b)) {
		c.add(Degraded, "sshd-include", target.SSHDConfig, fmt.Sprintf("does not begin with %q", topInclude), bakeAgain)
	}
}

// entry looks at one file or directory: there, of the right kind, root's, with
// the right mode. Only where all of that holds does it return true.
func (c *checker) entry(s Severity, name string, dir bool, mode fs.FileMode, fix string) bool {
	fi, err := c.t.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		c.add(s, "file-missing", name, "is missing", fix)
		return false
	case err != nil:
		c.add(s, "file-missing", name, err.Error(), fix)
		return false
	case fi.IsDir() != dir || !dir && !fi.Mode().IsRegular():
		c.add(s, "file-kind", name, "is a "+kind(fi)+", want a "+map[bool]string{true: "directory", false: "regular file"}[dir], fix)
		return false
	}
	ok := true
	if !owned(fi) {
		c.add(s, "file-owner", name, "does not belong to root", "run: chown root:root "+name)
		ok = false
	}
	if fi.Mode().Perm() != mode {
		c.add(s, "file-mode", name, fmt.Sprintf("mode is %04o, want %04o", fi.Mode().Perm(), mode), fmt.Sprintf("run: chmod %04o %s", mode, name))
		ok = false
	}
	return ok
}

func kind(fi fs.FileInfo) string {
	switch {
	case fi.Mode().IsRegular():
		return "regular file"
	case fi.IsDir():
		return "directory"
	case fi.Mode()&fs.ModeSymlink != 0:
		return "symbolic link"
	}
	return "special file"
}

func (c *checker) agent() {
	fix := "rebuild the image, or copy the agent for " + c.facts.arch + " to this system and run: ./totp-agent bake --again"
	if !c.entry(Degraded, target.AgentPath, false, agentMode, fix) {
		return
	}
	f, err := c.t.OpenFile(target.AgentPath, 0, 0)
	if err != nil {
		c.add(Degraded, "agent-arch", target.AgentPath, err.Error(), fix)
		return
	}
	defer f.Close()
	if arch, err := target.ELFArch(target.AgentPath, f); err != nil || arch != c.facts.arch {
		c.add(Degraded, "agent-arch", target.AgentPath, "is not a program for "+c.facts.arch, fix)
	}
}

// policy returns the image's policy, or nil where it cannot be read.
func (c *checker) policy() *policy.Policy {
	const fix = "restore it, or run: totp-agent bake --policy FILE"
	c.entry(Degraded, target.ImagePolicy, false, 0o600, fix)
	b, err := c.t.ReadFile(target.ImagePolicy)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var p *policy.Policy
	if err == nil {
		p, err = policy.Parse(policy.Image, target.ImagePolicy, b)
	}
	if err != nil {
		c.add(Degraded, "policy", target.ImagePolicy, err.Error(), fix)
		return nil
	}
	return p
}

// exempt says who logs in with a key alone.
func (c *checker) exempt() error {
	accounts, err := exemptAccounts(c.t, c.facts.policy.SSHD)
	if err != nil {
		return err
	}
	if names, err := rootExempt(c.t, c.facts.policy.SSHD); err != nil {
		return err
	} else if names != "" {
		c.add(Critical, "exempt-root", target.Passwd, fmt.Sprintf("%q: root by another name, which an exemption does not leave out", names),
			"remove the account, or "+bakeAgain)
	}
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		c.add(Notice, "exempt", target.SSHDDropIn, fmt.Sprintf("%q logs in with the key alone (%s)", name, accounts[name]),
			"nothing is to be done where that is as you want it")
	}
	return nil
}

// plan compares files, directories and links with those that bake makes.
func (c *checker) plan(p *plan) {
	for _, d := range p.dirs {
		c.entry(Critical, d.path, true, d.mode, bakeAgain)
	}
	for _, f := range p.files {
		c.file(f)
	}
	for _, l := range p.links {
		if l.stands(c.t) {
			continue
		}
		if c.newLink(l) {
			c.stale = true
			continue
		}
		id, what := "unit-disabled", "is missing, so that "+path.Base(l.path)+" does not start"
		if l.dest == "/dev/null" {
			id, what = "socket-unmasked", "is not masked, and would start sshd by another way"
		}
		c.add(Degraded, id, l.path, what, bakeAgain)
	}
	c.sockets()
	for _, unit := range []string{target.AgentService, target.DeliverService, target.DeliverTimer, target.SendService, target.SendSocket, target.LoginsService, target.LoginsPath, target.RepairService, target.RepairPath, target.RecheckService} {
		files, err := foreignDropIns(c.t, unit)
		if err != nil {
			c.add(Degraded, "unit-altered", unit, err.Error(), "correct it")
		}
		for _, file := range files {
			c.add(Degraded, "unit-altered", file, "changes "+unit, "remove it")
		}
	}
}

// file compares one file. A file that is as the last bake wrote it, or that this bake
// did not have, is one of a system that has changed since.
func (c *checker) file(f file) {
	s := Degraded
	if !f.unit {
		s = Critical
	}
	if dest, err := c.t.Readlink(f.path); err == nil && dest == "/dev/null" {
		c.add(s, "unit-masked", f.path, "is masked", "remove this link, then "+bakeAgain)
		return
	}
	b, err := c.t.ReadFile(f.path)
	if err == nil && string(b) == string(f.data) {
		c.entry(s, f.path, false, f.mode, bakeAgain)
		return
	}
	c.differs[f.path] = true
	if c.asBaked(f.path, b, err) {
		c.stale = true
		return
	}
	c.entry(s, f.path, false, f.mode, bakeAgain)
	if err == nil {
		c.add(s, "file-altered", f.path, "is not as the bake wrote it", "put settings of your own into another file, then "+bakeAgain)
	}
}

// sockets looks at who wants ssh.socket: masked it is, and sshd does not start
// where that requires it.
func (c *checker) sockets() {
	masked := link{target.SystemdUnitDir + "/" + c.facts.sshSocket, "/dev/null"}.stands(c.t)
	links, err := c.facts.socketLinks(c.t)
	if err != nil {
		c.add(Degraded, "socket-enabled", target.SystemdUnitDir, err.Error(), bakeAgain)
	}
	for _, l := range links {
		needed := path.Ext(path.Dir(l)) == requires
		switch {
		case masked && needed:
			c.add(Critical, "socket-required", l, "needs "+c.facts.sshSocket+", which is masked, so that nobody can log in after the next boot", "remove this link, or "+bakeAgain)
		case !masked && !needed:
			c.add(Degraded, "socket-enabled", l, "starts an sshd for each connection, which may come before the agent has run", "run: systemctl disable --now "+c.facts.sshSocket)
		}
	}
}

// module looks at cloud-init's module, and completes the plan by the list that
// names it.
func (c *checker) module(ctx context.Context, p *plan) {
	for _, name := range p.gone {
		if c.t.Exists(name) {
			c.add(Degraded, "module-left", name, "is there, and the policy does not ask for it", bakeAgain)
		}
	}
	if !c.facts.policy.CloudInitModule {
		return
	}
	err := c.facts.cloudInit(c.t)
	if err == nil {
		err = errors.Join(c.facts.planList(ctx, c.t, p), c.facts.moduleWorks(ctx, c.t))
	}
	if err != nil {
		c.add(Degraded, "module", target.CloudModule, err.Error(), bakeAgain)
	}
}

// sshd asks sshd itself, for each user, with the arguments of each unit that
// starts one.
func (c *checker) sshd(ctx context.Context) (err error) {
	starts, ps := c.facts.started(c.t)
	// Without our drop-in the unit starts the distribution's command: one cause.
	ps = slices.DeleteFunc(ps, func(p problem) bool { return p.degraded && c.differs[dropInOf(p.path, sshUnitTemplate)] })
	if !slices.ContainsFunc(c.findings, func(f Finding) bool { return f.ID == "ssh-unit" }) {
		c.problems(ps, Critical)
	}
	if fi, err := c.t.Stat(target.SSHDConfig); err == nil && !fi.Mode().IsRegular() && !fi.IsDir() {
		return nil // reported; sshd would wait for it
	}
	s, err := openSSHD(ctx, c.t)
	if errors.Is(err, ErrUnit) {
		return nil // reported with the units
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ls, err := logins(ctx, c.t, c.facts.policy.SSHD)
	if err != nil {
		return err
	}
	a := &answers{logins: ls}
	asked := map[string]bool{}
	for _, start := range starts {
		by := s.with(start)
		key := strings.Join(by.args, "\x00")
		if start.Args == nil || asked[key] {
			continue
		}
		asked[key] = true
		by.unit = start.Unit.Name
		if err := a.ask(ctx, by, c.facts.auth()); err != nil {
			return err
		}
	}
	c.findings = append(c.findings, a.findings()...)
	return nil
}
