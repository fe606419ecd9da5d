// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// ErrBusy is returned by Reset when logins in flight win over it each time.
var ErrBusy = errors.New("logins of this user are in progress and keep putting the old secret back; try again when they have ended")

var errMoved = errors.New("this machine is not the one that its state was made for; run: totp-agent enroll")

// ResetResult is a new enrollment.
type ResetResult struct {
	ID         string
	Generation int
	Sealed     []byte // the envelope, binary age

	Ways  []string // the channels that it can leave by
	Spent []string // those that take one envelope in their life, and have had it

	Remark string // about a channel with too little room, if any

	Adopted bool // the machine is bound to its machine-id now; other users have no secret
}

// Reset gives a user a new secret, backup codes and envelope. The old ones are
// dead when it returns a result, which it does beside an error that came later. recipients, if any, take the place of
// those the policy has for this user. On a disk mounted elsewhere the machine
// is taken to be the one that the disk was last used by.
func Reset(ctx context.Context, t *target.Target, user string, recipients []string, o Options) (*ResetResult, error) {
	o.fill()
	if err := policy.ValidUserName(user); err != nil {
		return nil, fmt.Errorf("user %q: %w", user, err)
	}
	t = t.View()
	defer t.Release()
	// Nothing is to be made in a directory on which no disk is mounted, nor below
	// one that waits for a file system of its own: a new secret there is none.
	for _, name := range []string{target.ImagePolicy, target.StateDir} {
		if _, err := t.Stat(name); err != nil && (name != target.StateDir || !runs(t)) {
			return nil, fmt.Errorf("%w; is the disk of a baked system mounted on %s, and all of it?", err, t.Root())
		}
	}
	r := &run{Options: o, t: t, outbox: deliver.OpenOutbox(t)}
	if err := r.directories(ctx); err != nil {
		return nil, err
	}
	unlock, err := lock(t)
	if err != nil {
		return nil, err
	}
	defer unlock()
	adopt, err := r.resolveIdentity()
	if err != nil {
		return nil, err
	}
	var refused []RefusedLayer
	r.policy, refused, err = LoadPolicy(t)
	for _, l := range refused {
		fmt.Fprintf(r.Log, "reset: refused the %s layer: %s\n", l.Layer, l.Error)
	}
	if err != nil {
		return nil, err
	}
	p, err := r.person(ctx, user, recipients)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", user, err)
	}
	// Only now is it certain that the user gets a new secret instead of the old ones.
	if adopt {
		if err := r.adoptMachine(); err != nil {
			return nil, err
		}
	}
	res, err := r.reset(ctx, p)
	if res != nil {
		res.Adopted = adopt
	}
	return res, diskError(t, err)
}

// resolveIdentity settles the identity that the new secret is bound to: on a live machine
// what the last run found, or what this boot shows; on a disk the one bound last, or what
// the disk remembers. It reports whether the machine is to be bound to its machine-id,
// which root has to ask for on a live machine: an unknown identity is not a new one.
func (r *run) resolveIdentity() (adopt bool, err error) {
	old, err := boundIdentity(r.t)
	if err != nil {
		return false, err
	}
	r.here, err = look(r.t, old)
	if err != nil {
		return false, err
	}
	switch {
	case !old.IsZero() && (!runs(r.t) || old.same(r.here.Identity) || !r.here.known && old.sameHardware(r.here.Identity)):
		r.here.Identity = old
	case !r.here.known && (r.AdoptMachine || !runs(r.t) && r.here.machineID != ""):
		return true, nil
	case !r.here.known:
		return false, ErrUnknownID
	case !old.IsZero():
		return false, errMoved
	}
	return false, nil
}

// person is the user with the given recipients, or with the policy's.
func (r *run) person(ctx context.Context, user string, recipients []string) (person, error) {
	accounts, err := r.t.Users()
	if err != nil {
		return person{}, err
	}
	var account target.User
	if i := slices.IndexFunc(accounts, func(a target.User) bool { return a.Name == user }); i >= 0 {
		account = accounts[i]
	} else if account, err = r.t.LookupUser(ctx, user); errors.Is(err, target.ErrNotInDirectory) {
		return person{}, ErrNoAccount
	} else if err != nil {
		return person{}, fmt.Errorf("%w: %w", errDirectory, err)
	}
	keys, err := r.t.LoginKeys(account)
	if unread := keysUnread(err); unread != nil {
		return person{}, unread
	}
	if err != nil {
		fmt.Fprintf(r.Log, "reset: %s: %v\n", user, err)
	}
	var named []seal.Recipient
	for _, s := range recipients {
		rec, err := seal.ParseRecipient(s)
		if err != nil {
			return person{}, fmt.Errorf("recipient: %w", err)
		}
		named = append(named, rec)
	}
	p := newPerson(r.policy, user, keys, named)
	id := identifyAccount(r.t, account)
	p.account = &id
	return p, p.err
}

// reset enrolls one user with two more steps: logins that were in flight when the new
// file took its place may rename the old one back over it, so the envelope is
// made ready only when no such login is left and the file is still ours.
func (r *run) reset(ctx context.Context, p person) (*ResetResult, error) {
	old, err := readState(r.t, p.name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(r.Log, "reset: %s: %v; taking its place\n", p.name, err)
	}
	m, err := r.make(p, old.Mark)
	if err != nil {
		return nil, err
	}
	ways, spent, err := r.outbox.Ways(r.policy, p.name, m.compact != nil)
	if err != nil {
		return nil, err
	}
	if err := r.outbox.Stage(m.Meta, m.sealed, m.compact); err != nil {
		return nil, err
	}
	atStep("staged")
	if err := r.commit(ctx, p.name, m); err != nil {
		return nil, errors.Join(err, r.abandon(p.name, m.ID))
	}
	atStep("committed")
	// From here on the old secret is dead, whatever else fails.
	res := &ResetResult{ID: m.ID, Generation: m.Generation, Sealed: m.sealed, Ways: ways, Spent: spent, Remark: r.misfit(p)}
	if runs(r.t) {
		if err := clearTally(r.t, p.name); err != nil {
			fmt.Fprintf(r.Log, "reset: %s: %v\n", p.name, err)
		}
	} else {
		r.adopted = m.ID
		if err := r.remember(); err != nil {
			return res, err
		}
	}
	if err := r.outbox.Promote(m.ID); err != nil {
		return res, err
	}
	atStep("promoted")
	// A user can log in now, so a notice that no user can is no longer true.
	return res, errors.Join(
		r.forgetTries(p.name),
		r.withdraw(func(o deliver.Meta) bool { return o.User == p.name && o.ID != m.ID }),
		r.writeNotice(ctx, ""))
}

// forgetTries empties the counter of pam_faillock for a user, who need not wait for
// the end of a lock with a new secret.
func (r *run) forgetTries(user string) error {
	f, err := r.t.OpenFile(target.PAMTallyDir+"/"+user, os.O_WRONLY|os.O_TRUNC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// commit puts the new state file in place until it stays there.
func (r *run) commit(ctx context.Context, user string, m made) error {
	for range settleTries {
		if err := r.t.WriteFile(stateFile(user), m.state, 0o400); err != nil {
			return err
		}
		// Once the new file is there, the reset is carried through.
		if err := r.settle(context.WithoutCancel(ctx), user); err != nil {
			return err
		}
		now, err := readState(r.t, user)
		if err == nil && now.Mark.ID == m.ID {
			return nil
		}
		fmt.Fprintf(r.Log, "reset: %s: a login put the old secret back; trying again\n", user)
	}
	return ErrBusy
}

// abandon undoes a reset that did not get through: the envelope goes only if
// the state file is not the one it belongs to.
func (r *run) abandon(user, id string) error {
	if now, err := readState(r.t, user); err == nil && now.Mark.ID == id {
		return nil
	}
	return r.outbox.Discard(id)
}

const (
	settleTries = 3
	settlePause = 20 * time.Millisecond
	// The module writes its temporary file and renames it in one go; one that
	// is older was left by a login that died.
	settleLimit = 5 * time.Second
)

// settle waits until the PAM module has no temporary file of this user left
// that a login could still rename over the state file. Those of logins that
// died are removed.
func (r *run) settle(ctx context.Context, user string) error {
	if !runs(r.t) {
		return nil
	}
	for deadline := time.Now().Add(settleLimit); ; {
		var temps []string
		err := r.eachState(func(name, file string) error {
			if rest, ok := strings.CutPrefix(name, user+"~"); ok && "~"+rest != heldSuffix {
				temps = append(temps, file)
			}
			return nil
		})
		if err != nil || len(temps) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			for _, f := range temps {
				if err := remove(r.t, f); err != nil {
					return err
				}
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(settlePause):
		}
	}
}

// rateLimit is the PAM module's limit for the policy's rate_limit.
func rateLimit(word string) otp.RateLimit {
	if word == "strict" {
		return otp.Strict
	}
	return otp.Standard
}
