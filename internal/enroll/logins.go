// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Logins lets go of the envelopes of users who have logged in with a code: they
// have their card, whatever a channel says. It is for a job that sees the PAM
// state and no network, beside delivery, which is the other way round. The error
// is that of a machine that cannot be looked at now; the next boot does the same.
func Logins(ctx context.Context, t *target.Target, o Options) error {
	o.fill()
	t = t.View()
	defer t.Release()
	if !t.Exists(target.Ready) {
		return nil
	}
	unlock, err := patientLock(ctx, t)
	if err != nil {
		return err
	}
	defer unlock()
	r := &run{Options: o, t: t, outbox: deliver.OpenOutbox(t)}
	if r.policy, _, err = LoadPolicy(t); err != nil {
		return err
	}
	return r.letGo(ctx)
}

// patientLock waits for an enrollment or a reset that is at work, which takes a
// moment: another event like this login may be long in coming.
func patientLock(ctx context.Context, t *target.Target) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	for {
		unlock, err = lock(t)
		if !errors.Is(err, errAlreadyLocked) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(lockPause):
		}
	}
}

const (
	lockPause    = 100 * time.Millisecond
	lockPatience = 25 * time.Second // less than totp-logins.service may take
)

// letGo retires what nobody needs any more, and takes it off sshd's banner. An
// envelope that an acknowledged channel is still to take stays: whoever is at the
// other end may need it too. One that is not in use yet comes back into the banner
// after a boot.
func (r *run) letGo(ctx context.Context) error {
	metas, err := r.outbox.Ready()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range metas {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		s, err := readState(r.t, m.User)
		if err != nil || s.Mark.ID != m.ID {
			continue
		}
		if !s.Used {
			if err := r.outbox.ShowAgain(ctx, r.policy, m); err != nil {
				fmt.Fprintf(r.Log, "enroll: %s: envelope %s: %v\n", m.User, m.ID, err)
			}
			continue
		}
		if err := r.outbox.Hide(r.policy, m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.User, err))
		}
		receipt, err := r.outbox.Receipts(m.ID)
		if err != nil {
			continue // delivery begins a new one
		}
		standing, err := r.outbox.Standing(r.policy, receipt)
		if err != nil {
			return err
		}
		if standing == deliver.Pending {
			continue
		}
		if err := r.outbox.Retire(r.policy, m); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.User, err))
			continue
		}
		fmt.Fprintf(r.Log, "enroll: %s has logged in with a code; envelope %s is done with\n", m.User, m.ID)
	}
	return errors.Join(errs...)
}
