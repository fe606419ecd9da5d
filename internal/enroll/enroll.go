// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package enroll is the agent's first-boot run: it decides which machine this
// is, which users are to be enrolled and for whom their cards are sealed, and
// makes each user's secret, state file and envelope in an order that survives
// a power cut at any moment.
//
// # Promises
//
// A secret exists in memory and in the PAM state file, nowhere else; the card
// leaves this package sealed. The rename of the PAM state file is the commit
// of an enrollment: the sealed envelope is durable before it, and is given
// to delivery only after it. A machine that is not the one the state files
// were made for has them removed before anything else is done. Run changes
// nothing where there is nothing to do.
//
// # Limits
//
// Whoever is root on the machine, or writes its user-data, decides all of
// this: the layers guard against mistakes, not against root.
package enroll

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Options are the circumstances of a run.
type Options struct {
	Agent   string           // version of the agent, for cards
	Log     io.Writer        // one line an event, no secrets
	Console io.Writer        // where the notice goes that nobody can log in; nil: nowhere
	Now     func() time.Time // nil: time.Now
	Rand    io.Reader        // nil: crypto/rand

	// AdoptMachine binds a machine whose identity is unknown to its machine-id, for root
	// who asks for it. All secrets that were made before are removed: they may be those of
	// the machine that this one is a copy of.
	AdoptMachine bool
}

func (o *Options) fill() {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
}

// The reasons why a user is not enrolled; Status shows them.
var (
	ErrNoRecipient   = errors.New("no recipient: neither user-data nor the image's policy names one")
	ErrNoAccount     = errors.New("no such account on this machine")
	ErrRootDenied    = errors.New("the image's policy keeps root from logging in over SSH (root_login: deny)")
	ErrLoginKey      = errors.New("the recipient is the user's own login key, which would make one factor of two; name another recipient, or none and list authorized_keys in the image's recipients_from")
	ErrUnknownID     = errors.New("the identity of this server is unknown in this boot, so no user can log in; reboot, and if that does not help, run: totp-agent reset --adopt-machine USER (this removes all existing secrets)")
	errAlreadyLocked = errors.New("another totp-agent is at work on this machine; wait for it to end")
)

// atStep is called between the steps of a run that must survive a power cut
// between them. Tests stop the process here.
var atStep = func(string) {}

// A run is one pass of the agent over one machine.
type run struct {
	Options
	t      *target.Target
	outbox *deliver.Outbox
	here   sighting
	policy *policy.Effective
	facts  cardFacts

	unanswered map[string]error // of directory services, by user

	exempt  bool   // somebody logs in with the key alone, by the policy
	adopted string // ID for the next boot, see bound.Adopt

	staged, ready map[string]bool   // IDs in the outbox when the users' turn came
	enrolled      map[string]string // in this run: user → ID
}

// Run enrolls everyone who is to be enrolled and is not yet, and writes what
// it found to the status file. The error is that of the machine or of a
// policy that cannot be read; a user who cannot be enrolled for want of a
// recipient is a line of the status, not an error.
func Run(ctx context.Context, t *target.Target, o Options) (*Status, error) {
	o.fill()
	t = t.View()
	defer t.Release()
	r := &run{Options: o, t: t, outbox: deliver.OpenOutbox(t)}
	st, err := r.run(ctx)
	if errors.Is(err, errAlreadyLocked) {
		return st, err // the other one says how things are
	}
	if err != nil {
		st.ErrorCode = codeOf(err)
		err = diskError(t, err)
		st.Error = err.Error()
		if isDisk(codeOf(err)) {
			st.ErrorCode = codeOf(err)
		}
	}
	err = errors.Join(err, r.publish(ctx, st))
	return st, err
}

func (r *run) run(ctx context.Context) (*Status, error) {
	st := &Status{Version: 1, Agent: r.Agent, Time: r.Now().UTC().Truncate(time.Second)}
	if err := r.directories(ctx); err != nil {
		return st, err
	}
	unlock, err := lock(ctx, r.t, runPatience())
	if err != nil {
		return st, err
	}
	defer unlock()
	if err := r.sweep(); err != nil {
		return st, err
	}

	// The identity comes before the policy: a clone must lose its original's
	// secrets also where its policy cannot be read.
	mayEnroll, err := r.bind()
	st.Identity = r.here.why
	st.InstanceID = r.here.instanceID
	st.Unknown = err == nil && !mayEnroll
	if err != nil {
		return st, err
	}

	if mayEnroll {
		if err := r.repairModes(); err != nil {
			return st, err
		}
	}
	for _, name := range closeLayers(r.t) {
		fmt.Fprintf(r.Log, "enroll: %s: other users could read it; its mode is 0600 now: write permissions: \"0600\" beside its path\n", name)
	}
	r.policy, st.RefusedLayers, err = LoadPolicy(r.t)
	for _, l := range st.RefusedLayers {
		fmt.Fprintf(r.Log, "enroll: refused the %s layer %s\n", l.Layer, l.Error)
	}
	if err != nil {
		return st, err
	}
	for _, n := range r.policy.Notices {
		st.Remarks = append(st.Remarks, RefusedLayer{Layer: string(n.Layer), Error: n.Err.Error()})
		fmt.Fprintf(r.Log, "enroll: %s layer: %v\n", n.Layer, n.Err)
	}
	r.prepareBanner(ctx)
	accounts, err := r.t.Users()
	if err != nil {
		return st, err
	}
	accounts = append(accounts, r.directoryAccounts(ctx, accounts)...)
	people, err := r.people(accounts)
	if err != nil {
		return st, err
	}
	errs := []error{r.everyone(ctx, people, mayEnroll, st)}
	if mayEnroll {
		errs = append(errs, r.leftovers(accounts, people, st), r.letGo(ctx))
	}
	checking, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	st.checkLogins(checking, r.t, accounts)
	st.logLogins(r.Log)
	return st, errors.Join(errs...)
}

// The users of a boot are committed in batches: the unit has a time limit, and on a busy
// machine the next try continues where the limit has ended this one.
var (
	batchSize = 100
	batchTime = 3 * time.Second
)

// everyone enrolls all users who are not enrolled yet, and sets the status of each in st.
func (r *run) everyone(ctx context.Context, people []person, mayEnroll bool, st *Status) error {
	users := make([]UserStatus, len(people))
	why := make([]error, len(people))
	var batch []*made
	var began time.Time
	commit := func() {
		err := r.finish(ctx, batch)
		for _, m := range batch {
			if m.err == nil && !m.ready {
				m.err = err
			}
		}
		batch = nil
	}
	for i, p := range people {
		if ctx.Err() != nil {
			break
		}
		users[i] = UserStatus{Name: p.name, From: string(r.policy.OriginOf(p.name)), Remark: r.misfit(p)}
		if !mayEnroll {
			why[i] = ErrUnknownID
			continue
		}
		if len(batch) == 0 {
			began = time.Now()
		}
		m, err := r.user(p, &users[i])
		if why[i] = err; m != nil {
			users[i].made = m
			batch = append(batch, m)
		}
		if len(batch) >= batchSize || time.Since(began) > batchTime {
			commit()
		}
	}
	commit()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var errs []error
	for i := range users {
		u := &users[i]
		if u.made != nil {
			why[i] = u.made.err
			u.Enrolled, u.ID, u.Generation = why[i] == nil, u.made.ID, u.made.Generation
		}
		switch err := why[i]; {
		case err != nil:
			u.Why, u.Code = err.Error(), codeOf(err)
			fmt.Fprintf(r.Log, "enroll: %s: not enrolled: %s\n", u.Name, u.Why)
			if !isReason(err) {
				errs = append(errs, fmt.Errorf("%s: %w", u.Name, err))
			}
		case u.made != nil:
			fmt.Fprintf(r.Log, "enroll: %s: enrolled, envelope %s is ready for delivery\n", u.Name, u.ID)
		}
	}
	st.Users = users
	return errors.Join(errs...)
}

// isReason reports whether err is an answer of the policy, and not a fault of
// the machine.
func isReason(err error) bool {
	for _, e := range []error{ErrNoRecipient, ErrNoAccount, ErrRootDenied, ErrLoginKey, ErrUnknownID, errRecipients, errDirectory, policy.ErrUserName} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// directories makes sure of the directories that hold secrets and envelopes:
// real ones, root's own, closed to everybody else.
func (r *run) directories(ctx context.Context) error {
	made := false
	for _, d := range []string{target.Etc, target.VarLib} {
		if !r.t.IsDir(d) {
			continue
		}
		if err := r.t.Hold(d); err != nil {
			return err
		}
	}
	for _, d := range []string{target.StateDir, target.Outbox, target.Staged, target.Ready, target.Receipts, target.PAMStateDir} {
		is, err := r.t.MkdirEntry(d, 0o700)
		if err != nil {
			return err
		}
		made = made || is
		if is && d == target.PAMStateDir {
			if err := r.label(ctx, d); err != nil {
				return err
			}
		}
		// What follows is found from there.
		if err := r.t.Hold(target.VarLib, d); err != nil {
			return err
		}
	}
	if made {
		return r.t.Sync(target.StateDir, target.PAMStateDir)
	}
	return nil
}

// label gives the new directory of the secrets the SELinux label without which
// sshd may not write there. A directory that has none is not kept, so that the next
// run tries again.
func (r *run) label(ctx context.Context, dir string) error {
	if err := r.t.Relabel(ctx, dir); err != nil {
		return errors.Join(err, r.t.Remove(dir))
	}
	return nil
}

// LoadPolicy reads the three layers. A missing layer is skipped, and one with mistakes is
// refused. A layer that cannot be read now, by a fault of the machine, is an error: without
// it, cards would be sealed to the recipients of the layers below.
func LoadPolicy(t *target.Target) (*policy.Effective, []RefusedLayer, error) {
	image, err := readOwn(t, target.ImagePolicy)
	if err != nil {
		return nil, nil, err
	}
	texts, files := map[policy.Layer][]byte{}, map[policy.Layer]string{}
	var refused []RefusedLayer
	stale, err := staleLayers(t)
	if err != nil {
		return nil, nil, err
	}
	if !stale {
		for _, c := range carriers {
			texts[c.layer], files[c.layer], err = c.readPatiently(t)
			if target.IsFault(err) {
				return nil, refused, fmt.Errorf("%s layer: %w: %w", c.layer, err, errLayerUnread)
			}
			if err != nil {
				refused = append(refused, RefusedLayer{Layer: string(c.layer), Error: err.Error()})
			}
		}
	}
	e, refusals, err := policy.Load(image, texts[policy.Vendor], texts[policy.Instance])
	for _, l := range refusals {
		named(l.Err, files[l.Layer])
		refused = append(refused, RefusedLayer{Layer: string(l.Layer), Error: l.Err.Error()})
	}
	if err != nil {
		return e, refused, fmt.Errorf("%w: %w", errPolicy, err)
	}
	for _, n := range e.Notices {
		named(policy.Errors{n.Err}, files[n.Layer])
	}
	return e, refused, nil
}

// staleLayers reports whether the layers on disk were written for an instance
// that this machine is not: cloud-init has named one once, and the present
// identity is the machine's own.
func staleLayers(t *target.Target) (bool, error) {
	have, err := readBound(t)
	if err != nil || !strings.HasPrefix(have.Identity, kindMachine) {
		return false, err
	}
	return exists(t, target.CloudDataInstanceID)
}

// exists reports whether name is there. A fault is an error: it says neither.
func exists(t *target.Target, name string) (bool, error) {
	_, err := t.Lstat(name)
	if target.IsFault(err) {
		return false, err
	}
	return err == nil, nil
}

// errLayerUnread is about a layer that may be there and whole.
var errLayerUnread = errors.New("the layer cannot be read now, so no user is enrolled; correct the disk, then run: totp-agent enroll")

// errPolicy marks errors of the image's policy: wrong use, not a fault.
var errPolicy = errors.New("policy")

// IsPolicyError reports whether err is about the image's policy.
func IsPolicyError(err error) bool { return errors.Is(err, errPolicy) }
