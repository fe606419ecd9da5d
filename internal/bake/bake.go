// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package bake makes an image of a system whose SSH logins demand a key and a
// one-time code, tells whether that still holds, and removes the agent's own
// state from an image.
//
// # Promises
//
// Run does the same whether it is the first time or the tenth: what is as it
// should be is not written again. A run that fails puts back every file that
// it touched; packages it installed stay. It refuses what it does not
// understand, a PAM file with other ways in it say, with the file and line. It
// neither restarts nor reloads sshd, so that the session that bakes goes on, and
// leaves no host keys behind. The state of users who are already enrolled is
// not touched.
//
// Check changes nothing.
//
// # Limits
//
// What sshd makes of the configuration is asked of sshd itself, for every
// account that may log in and for one that does not exist. Rules that depend on
// where a connection comes from are asked for one address only; the Match block
// that closes our file is what holds for all the others.
package bake

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Options say what to bake.
type Options struct {
	Policy *policy.Policy // the image's policy, valid
	Agent  string         // the agent's program, a path of this host
	Log    io.Writer      // one line a step, no secrets; nil: none

	AllowUntested bool // bake also what nobody has tested, see the README's table
}

// The reasons why a system is not baked. The first
// six are found before any file is changed.
var (
	ErrSystem      = errors.New("not a supported system")
	ErrUntested    = errors.New("nobody has tested this system")
	ErrAgent       = errors.New("not an agent for this system")
	ErrPAM         = errors.New("the PAM service sshd has a line that the agent cannot accept")
	ErrSSHDConfig  = errors.New("sshd would not read the agent's settings first")
	ErrWritable    = errors.New("whoever can may let himself in")
	ErrUnit        = errors.New("the unit that starts sshd is not the distribution's")
	ErrPackage     = errors.New("not installed")
	ErrSSHDRefuses = errors.New("sshd refuses its configuration")
	ErrEffective   = errors.New("sshd would not ask for key and code")
	ErrLockedOut   = errors.New("the user cannot log in")
	ErrCloudInit   = errors.New("cloud-init would not run the module totp")
)

// ErrPackagesStay is no reason: it comes with one, and names the packages that a
// failed bake had installed by then.
var ErrPackagesStay = errors.New("installed by this bake, and not removed again")

// Again returns the options of another bake of a machine, from the policy that is in
// it. What the first bake was allowed, it is too.
func Again(t *target.Target) (Options, error) {
	const fix = "run: totp-agent bake --policy FILE"
	b, err := t.ReadFile(target.ImagePolicy)
	if err != nil {
		return Options{}, fmt.Errorf("%w; %s", err, fix)
	}
	p, err := policy.Parse(policy.Image, target.ImagePolicy, b)
	if err != nil {
		return Options{}, err
	}
	o := Options{Policy: p}
	if r, err := ReadReport(t); err == nil {
		now, err := t.OS()
		o.AllowUntested = err == nil && r.System.Support == Untested && r.System.ID == now.ID
	}
	return o, nil
}

// Run makes the target an image whose SSH logins demand key and code. When it
// fails, every file is as it was before; the error is [ErrPackagesStay] as well
// where packages are not.
func Run(ctx context.Context, t *target.Target, o Options) (*Report, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	b := &baker{Options: o, t: t, journal: journal{t: t}}
	report, err := b.run(ctx)
	if err != nil {
		return nil, errors.Join(err, b.restore(ctx), b.stay(ctx))
	}
	b.journal.close()
	return report, nil
}

// sync puts on the disk what apt and systemctl have done, since a build may end by
// pulling the plug. It is a step, so that its error takes the bake back.
func (b *baker) sync(context.Context) (string, error) {
	if !isLive(b.t) {
		return "left to the system that has mounted this one", nil
	}
	return "all is on the disk", b.t.Sync("/", "/usr", "/var", target.VarLib)
}

// restore puts every file back after a failure, an interrupted context too.
func (b *baker) restore(ctx context.Context) error {
	defer b.journal.close()
	if !b.journal.used() {
		return nil
	}
	start := time.Now()
	err := b.journal.undo()
	if b.t.Booted() {
		_, reload := b.t.Run(context.WithoutCancel(ctx), target.Systemctl, "daemon-reload")
		err = errors.Join(err, reload)
	}
	if err != nil {
		return fmt.Errorf("restoring what was changed: %w", err)
	}
	b.say("restore", start, "every file is as it was")
	return nil
}

// A baker is one run.
type baker struct {
	Options
	t       *target.Target
	journal journal
	facts   *facts
	plan    *plan

	wanted []string          // packages that were asked for
	had    map[string]string // those of them that were there before

	effective map[string]map[string]string // user → keyword → value, as sshd says
	clockKept *ReportTime
	firewalls []ReportFirewall
}

func (b *baker) run(ctx context.Context) (*Report, error) {
	unlock, err := b.lock()
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	defer unlock()
	var report *Report
	for _, step := range []struct {
		name string
		do   func(context.Context) (string, error)
	}{
		{"system", b.system},
		{"packages", b.packages},
		{"sshd version", b.version},
		{"directories", b.directories},
		{"agent", b.agent},
		{"policy", b.policy},
		{"pam", b.pam},
		{"sshd", b.sshd},
		{"sshd_config", b.include},
		{"moduli", b.moduli},
		{"units", b.units},
		{"module", b.module},
		{"selinux", b.selinux},
		{"time", b.time},
		{"verify", b.verify},
		{"firewall", b.firewall},
		{"report", func(ctx context.Context) (said string, err error) {
			report, said, err = b.report(ctx)
			return said, err
		}},
		{"sync", b.sync},
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		start := time.Now()
		said, err := step.do(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		b.say(step.name, start, said)
	}
	return report, nil
}

func (b *baker) say(step string, start time.Time, what string) {
	fmt.Fprintf(b.Log, "bake: %s: %s (%d ms)\n", step, what, time.Since(start).Milliseconds())
}

// lock keeps a second bake and an enrollment out.
func (b *baker) lock() (func(), error) {
	if err := b.journal.mkdir(target.StateDir, 0o700); err != nil {
		return nil, err
	}
	return b.t.Lock(target.StateDir)
}
