// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package clean removes from an image what belongs to the machine that built
// it: keys, identities, state, logs, and the account that the build logged in
// with; and tells what is left.
//
// # Promises
//
// What the running build still needs is not touched: its account's keys,
// password and sudo rights, the host keys, which sshd reads anew for each
// connection, and the machine-id. That part is deferred: to the shutdown of this
// machine, by a unit under /run that no image keeps, and where there is no
// orderly shutdown to the first boot of the image, ahead of cloud-init. A mark
// in the agent's directory says that it is to be done; it is done once, and
// never again.
//
// An account that an image's policy or cloud-init's default_user names stays, and
// so does root.
//
// # Limits
//
// Files are removed, not overwritten: the blocks of a disk keep what they held
// until somebody else writes to them, or the image's tools trim them.
package clean

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Options say what to clean.
type Options struct {
	Policy *policy.Policy // the image's; nil: the one in the image
	Login  string         // the account that the build logs in with, where it is known
	Log    io.Writer      // one line a step; nil: none
}

// A Report says what was done, and what was found afterwards.
type Report struct {
	Done     []string `json:"done"`     // what was removed, in words
	Deferred []string `json:"deferred"` // what goes at the shutdown, or with the first boot
	Kept     []string `json:"kept"`     // login keys that stay, and because of which key of the policy
	Leaks    []Leak   `json:"leaks"`    // what is left, the deferred among it
}

// ErrLeaks means that an image holds what it must not hold.
var ErrLeaks = errors.New("the image is not clean")

// Run cleans a machine that runs, and defers what the build still needs; or a
// disk that is mounted, and then defers nothing. The error is [ErrLeaks] if
// something is left that nobody will remove.
func Run(ctx context.Context, t *target.Target, o Options) (*Report, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	// Nothing is to be removed from a directory that holds something else.
	if _, err := t.Stat(target.Passwd); err != nil {
		return nil, fmt.Errorf("%w; is the disk of a system mounted on %s?", err, t.Root())
	}
	p, err := imagePolicy(t, o.Policy)
	if err != nil {
		return nil, err
	}
	unlock, err := lock(t)
	if err != nil {
		return nil, err
	}
	defer unlock()
	c := &cleaner{ctx: ctx, t: t, log: o.Log, policy: p}
	m, err := newMark(t, p, o.Login)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if r.Kept, err = c.kept(); err != nil {
		return nil, err
	}
	r.Done, err = c.steps(now)
	if err != nil {
		return r, err
	}
	if t.Live() {
		if err := c.postpone(m); err != nil {
			return r, err
		}
		for _, s := range deferred {
			r.Deferred = append(r.Deferred, s.what)
		}
		r.Deferred = append(r.Deferred, m.words()...)
	} else {
		done, err := c.finish(m)
		r.Done = append(r.Done, done...)
		if err != nil {
			return r, err
		}
	}
	if t.Live() {
		if err := t.Sync("/", target.HomeDir, "/var", target.VarLib, "/var/log"); err != nil {
			return r, err
		}
	}
	if r.Leaks, err = Leaks(t); err != nil {
		return r, err
	}
	for i := range r.Leaks {
		r.Leaks[i].Deferred = t.Live() && m.covers(r.Leaks[i])
	}
	return r, Judge(r.Leaks)
}

// Finish does what was deferred, if there is anything. At the shutdown of the
// build the mark stays after an error, so that the first boot tries again; at
// the first boot it goes in any case: what it stands for must not happen to a
// machine that is in use.
func Finish(ctx context.Context, t *target.Target, log io.Writer, atBoot bool) error {
	m, err := readMark(t)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil && !atBoot {
		return err
	}
	p, perr := imagePolicy(t, nil)
	if perr != nil {
		p = new(policy.Policy).WithDefaults()
	}
	c := &cleaner{ctx: ctx, t: t, log: log, policy: p, boot: atBoot}
	_, ferr := c.finish(m)
	return errors.Join(err, perr, ferr)
}

// Judge makes an error of leaks that are not deferred.
func Judge(leaks []Leak) error {
	var lines []string
	for _, l := range leaks {
		if !l.Deferred {
			lines = append(lines, l.String())
		}
	}
	if lines == nil {
		return nil
	}
	return fmt.Errorf("%w:\n%s", ErrLeaks, strings.Join(lines, "\n"))
}

// A cleaner is one pass over one machine.
type cleaner struct {
	ctx    context.Context
	t      *target.Target
	log    io.Writer
	policy *policy.Policy
	boot   bool // in the image's first boot
}

// steps does one list of steps. One that fails does not keep the others from
// being done.
func (c *cleaner) steps(list []step) (done []string, err error) {
	var errs []error
	for _, s := range list {
		if err := c.ctx.Err(); err != nil {
			return done, err
		}
		start := time.Now()
		if err := s.do(c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.what, err))
			continue
		}
		done = append(done, s.what)
		fmt.Fprintf(c.log, "clean: %s (%d ms)\n", s.what, time.Since(start).Milliseconds())
	}
	return done, errors.Join(errs...)
}

// finish does all that was deferred, and removes the mark.
func (c *cleaner) finish(m mark) ([]string, error) {
	done, err := c.account(m) // before the backups of the user database go
	more, serr := c.steps(deferred)
	done, err = append(done, more...), errors.Join(err, serr)
	if err != nil && !c.boot {
		return done, err
	}
	return done, errors.Join(err, missingIsFine(c.t.Remove(markFile)))
}

func imagePolicy(t *target.Target, p *policy.Policy) (*policy.Policy, error) {
	if p == nil {
		b, err := t.ReadFile(target.ImagePolicy)
		if errors.Is(err, fs.ErrNotExist) {
			return new(policy.Policy).WithDefaults(), nil
		}
		if err != nil {
			return nil, err
		}
		if p, err = policy.Parse(policy.Image, target.ImagePolicy, b); err != nil {
			return nil, err
		}
	}
	return p.WithDefaults(), nil
}

// lock keeps a bake, an enrollment and a second clean out.
func lock(t *target.Target) (func(), error) {
	if err := t.Mkdir(target.StateDir, 0o700); err != nil {
		return nil, err
	}
	return t.Lock(target.StateDir)
}

// named tells where the image's policy speaks of an account, if it does: such an
// account stays, and keeps the login keys that the image gives it. Root is not
// asked: it always stays, and its keys are those of whoever built the image.
func named(t *target.Target, p *policy.Policy, u target.User) (where string, err error) {
	if u.Name == "root" {
		return "", nil
	}
	if slices.ContainsFunc(p.Users, func(e policy.User) bool { return e.Name == u.Name }) {
		return "users", nil
	}
	if slices.Contains(p.SSHD.ExemptUsers, u.Name) {
		return "sshd.exempt_users", nil
	}
	groups, err := t.GroupsOf(u)
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		if slices.Contains(p.SSHD.ExemptGroups, g) {
			return fmt.Sprintf("sshd.exempt_groups: %q", g), nil
		}
	}
	return "", nil
}

func missingIsFine(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// marshal is JSON for people and programs.
func marshal(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}
