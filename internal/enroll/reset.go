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

	Replaces bool // there was an older secret, which has stopped working

	deliver.Ways

	Remark string // about a channel with too little room, if any

	Login *LoginCheck // of a running machine; nil if it could not be made

	Ready   bool // the envelope is ready for delivery; the error says why it is not
	Adopted bool // the machine is bound to its machine-id now; other users have no secret
}

// Reset gives a user a new secret, backup codes and envelope. The old ones are
// dead if it returns a result, also one beside an error. Without a result nothing has
// changed for the user. recipients, if any, take the place of
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
	unlock, err := lock(ctx, t, handPatience)
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
	if errors.Is(err, ErrNoRecipient) {
		err = fmt.Errorf("%w; run: %s", err, kindOf(CodeNoRecipient).problem(user, "").Fix)
	}
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
	if old, err = r.correct(old); err != nil {
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

// reset enrolls one user. From the commit on the old secret is dead, and there is a result
// whatever else fails. What can fail without harm is done before.
func (r *run) reset(ctx context.Context, p person) (*ResetResult, error) {
	old, errOld := readState(r.t, p.name)
	if errOld != nil && !errors.Is(errOld, fs.ErrNotExist) {
		fmt.Fprintf(r.Log, "reset: %s: %v; taking its place\n", p.name, errOld)
	}
	m, err := r.make(p, old.Mark)
	if err != nil {
		return nil, err
	}
	m.replaces = !errors.Is(errOld, fs.ErrNotExist)
	res := &ResetResult{ID: m.ID, Generation: m.Generation, Sealed: m.sealed, Replaces: m.replaces, Remark: r.misfit(p)}
	if res.Ways, err = r.outbox.Ways(r.policy, deliver.Item{Meta: m.Meta, Sealed: m.sealed, Compact: m.compact}); err != nil {
		return nil, err
	}
	live := runs(r.t)
	if !live {
		if err := r.announce(m.ID); err != nil {
			return nil, err
		}
	}
	if err := r.outbox.Write(m.Meta, m.sealed, m.compact); err != nil {
		return nil, err
	}
	err = errors.Join(r.finish(ctx, []*made{&m}), m.err)
	if !m.live {
		return nil, err
	}
	res.Ready = m.ready
	if live {
		if err := clearTally(r.t, p.name); err != nil {
			fmt.Fprintf(r.Log, "reset: %s: %v\n", p.name, err)
		}
	}
	errs := []error{err, r.forgetTries(p.name)}
	if m.ready {
		errs = append(errs, r.withdraw(func(o deliver.Meta) bool { return o.User == p.name && o.ID != m.ID }))
	}
	notice := ""
	if live {
		res.Login, notice = r.checkReset(ctx, p.name)
	}
	return res, errors.Join(append(errs, r.writeNotice(ctx, notice))...)
}

// checkReset reports whether a user with a new secret can log in, and what the notice that
// no user can is now: a new secret alone lets no user in.
func (r *run) checkReset(ctx context.Context, user string) (login *LoginCheck, notice string) {
	ctx, cancel := context.WithTimeout(ctx, loginLimit)
	defer cancel()
	st, err := ReadStatus(ctx, r.t)
	if err != nil {
		return nil, ""
	}
	for _, u := range st.Users {
		if u.Name == user {
			login = u.Login
		}
	}
	if login == nil || login.Verdict != LoginImpossible {
		return login, ""
	}
	return login, st.Notice
}

// announce records, before the commit of a reset on a mounted disk, the enrollment that the
// next boot may adopt. Those of earlier resets stay as long as their state files are there.
func (r *run) announce(id string) error {
	have, err := readBound(r.t)
	if err != nil {
		return err
	}
	ids := strings.Fields(have.Adopt)
	live := map[string]bool{}
	err = r.eachState(func(name, _ string) error {
		if s, err := readState(r.t, name); err == nil {
			live[s.Mark.ID] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !live[id] })
	r.adopted = strings.Join(append(ids, id), " ")
	return r.remember()
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

// outlast makes sure that no login puts an old state file back. The PAM module writes a
// temporary file and then checks that the state file is still the one that it has read, so
// only a login whose temporary file is there can rename it over the new one.
func (r *run) outlast(ctx context.Context, ms []*made) error {
	for range settleTries {
		users := map[string]bool{}
		for _, m := range ms {
			if m.replaces && m.live && m.err == nil {
				users[m.User] = true
			}
		}
		if len(users) == 0 {
			return nil
		}
		if err := r.settle(ctx, users); err != nil {
			return err
		}
		again := false
		for _, m := range ms {
			if !users[m.User] || r.holds(m) {
				continue
			}
			again = true
			fmt.Fprintf(r.Log, "enroll: %s: a login put the old secret back; trying again\n", m.User)
			m.err = r.t.WriteFile(stateFile(m.User), m.state, 0o400)
			m.live = m.err == nil || r.holds(m)
		}
		if !again {
			return nil
		}
	}
	for _, m := range ms {
		if m.replaces && m.err == nil && !r.holds(m) {
			m.live, m.err = false, ErrBusy
		}
	}
	return nil
}

// holds reports whether the user's state file is the one of m. One that cannot be read may
// be it.
func (r *run) holds(m *made) bool {
	now, err := readState(r.t, m.User)
	return err == nil && now.Mark.ID == m.ID || target.IsFault(err)
}

const (
	settleTries = 3
	settlePause = 20 * time.Millisecond
	// The module writes its temporary file and renames it in one go; one that
	// is older was left by a login that died.
	settleLimit = 5 * time.Second
)

// settle waits until the PAM module has no temporary file of these users left
// that a login could still rename over the state file. Those of logins that
// died are removed.
func (r *run) settle(ctx context.Context, users map[string]bool) error {
	if !runs(r.t) {
		return nil
	}
	for deadline := time.Now().Add(settleLimit); ; {
		var temps []string
		err := r.eachState(func(name, file string) error {
			if user, rest, ok := strings.Cut(name, "~"); ok && users[user] && "~"+rest != heldSuffix {
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
