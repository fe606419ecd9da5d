// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Logins follows up on logins. It retires the envelopes of users who have logged in with a
// code: they have their card, whatever a channel reports. It logs rate limits and a disk
// that leaves logins no room. It is for a job that sees the PAM state and no network,
// beside delivery, which is the other way round. The error is that of a machine that
// cannot be read now; the next boot does the same.
func Logins(ctx context.Context, t *target.Target, o Options) error {
	o.fill()
	t = t.View()
	defer t.Release()
	if !t.Exists(target.Ready) {
		return nil
	}
	unlock, err := lock(ctx, t, handPatience)
	if err != nil {
		return err
	}
	defer unlock()
	r := &run{Options: o, t: t, outbox: deliver.OpenOutbox(t)}
	watched := r.watch()
	if r.policy, _, err = LoadPolicy(t); err != nil {
		return errors.Join(watched, err)
	}
	return errors.Join(watched, r.letGo(ctx))
}

// watch logs what logins show of tries and of the disk.
func (r *run) watch() error {
	w := readWatch(r.t)
	changed := false
	err := r.eachState(func(name, _ string) error {
		s, err := readState(r.t, name)
		if err == nil && !strings.Contains(name, "~") {
			changed = w.tried(r.t, name, s, r.Now(), r.Log) || changed
		}
		return nil
	})
	if code, detail := roomLeft(r.t); code != w.Disk {
		if code != "" {
			fmt.Fprintf(r.Log, "logins: problem=%s %s; %s\n", code, detail, kindOf(code).Fix)
		} else {
			fmt.Fprintf(r.Log, "logins: problem=%s has ended\n", w.Disk)
		}
		w.Disk, changed = code, true
	}
	if !changed {
		return err
	}
	return errors.Join(err, r.t.Mkdir(target.RunDir, 0o755), w.write(r.t))
}

// roomLeft returns the code of what the disk is short of. The unit's sandbox shows the
// secrets' directory read-only, so the probe is beside it, on the same file system.
func roomLeft(t *target.Target) (code, detail string) {
	if !isLive(t) {
		return "", ""
	}
	space, err := t.Space(target.PAMStateDir)
	if err != nil || !space.Low() {
		return "", ""
	}
	if t.SameDevice(target.PAMStateDir, target.StateDir) {
		if err := t.CheckRewrite(target.StateDir, "", stateSize); target.IsDiskFault(err) {
			return codeOf(err), space.String()
		}
	}
	return CodeDiskLow, space.String()
}

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
