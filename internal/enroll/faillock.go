// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/faillock"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// A tally is what pam_faillock knows of a user's tries since the last login. The file is the
// user's own, so it may be forged, about this user alone.
type tally []faillock.Record

// readTally reads a user's tally: empty where there is none, or none that is one.
func readTally(t *target.Target, user string) tally {
	b, err := t.ReadFile(path.Join(target.PAMTallyDir, user))
	if err != nil {
		return nil
	}
	records, err := faillock.Parse(b)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(records, func(r faillock.Record) bool { return !r.Valid })
}

// lockedUntil returns when pam_faillock lets the user try again, zero if it does now. The
// baked lines give it the numbers of the module's own limit.
func (a tally) lockedUntil(l otp.RateLimit, now time.Time) time.Time {
	if l.Attempts == 0 {
		return time.Time{}
	}
	return faillock.LockedUntil(a, faillock.Limit{Tries: l.Attempts, Period: time.Duration(l.Seconds) * time.Second}, now)
}

// first is the time of the oldest try.
func (a tally) first() time.Time {
	return slices.MinFunc(a, func(x, y faillock.Record) int { return x.Time.Compare(y.Time) }).Time
}

// sources are the addresses of the tries, each once.
func (a tally) sources() []string {
	var all []string
	for _, r := range a {
		if r.Source.IsValid() {
			all = append(all, r.Source.String())
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// clearTally lets a user who has a new secret try at once. The file stays, since
// pam_faillock opens one that is missing without its lock.
func clearTally(t *target.Target, user string) error {
	f, err := t.OpenRegular(path.Join(target.PAMTallyDir, user), os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(0), f.Close())
}
