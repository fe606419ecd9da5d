// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// A RateLimit says that PAM refuses a user's codes, right ones too, because of the tries
// before them.
type RateLimit struct {
	Limited bool      `json:"limited"`           // now; else within the last hour
	Until   time.Time `json:"until"`             // a try after this is taken, if none comes before
	Since   time.Time `json:"since,omitzero"`    // the first try that was seen after the last login
	Tries   int       `json:"tries"`             // seen since then, none of them successful; there may have been more
	Sources []string  `json:"sources,omitempty"` // addresses of the latest tries, where PAM knows them
}

func (r *RateLimit) String() string {
	s := "rate-limited until "
	if !r.Limited {
		s = "rate-limited within the last hour, until "
	}
	s += r.Until.UTC().Format(time.RFC3339)
	if r.Tries > 0 {
		s += fmt.Sprintf("; at least %d tries without success since %s", r.Tries, r.Since.UTC().Format(time.RFC3339))
	}
	if len(r.Sources) > 0 {
		s += " from " + strings.Join(r.Sources, ", ")
	}
	return s
}

// limitedUntil returns when the module takes a code again, zero if it does now. It counts
// the tries of the last Seconds, the one at hand included, and refuses that if there are
// more than Attempts. (rate_limit in pam_google_authenticator.c 1.08)
func limitedUntil(s otp.State, now time.Time) time.Time {
	if s.RateLimit.Attempts == 0 || len(s.Tries) < s.RateLimit.Attempts {
		return time.Time{}
	}
	tries := slices.Sorted(slices.Values(s.Tries))
	// Those in the future, after a clock was set back, are not counted.
	for len(tries) > 0 && tries[len(tries)-1] > now.Unix() {
		tries = tries[:len(tries)-1]
	}
	if len(tries) < s.RateLimit.Attempts {
		return time.Time{}
	}
	until := time.Unix(tries[len(tries)-s.RateLimit.Attempts]+int64(s.RateLimit.Seconds)+1, 0)
	if !until.After(now) {
		return time.Time{}
	}
	return until
}

// A watch is what totp-logins.service has seen of tries in this boot: the state file
// itself remembers no more of them than the limit has. Under /run it survives no boot.
type watch struct {
	Users map[string]seen `json:"users"`
	Disk  string          `json:"disk,omitempty"` // the last problem of the disk that was logged
}

// seen is one user's part: tries without success.
type seen struct {
	ID     string    `json:"id,omitempty"`   // the enrollment
	Newest int64     `json:"newest"`         // the newest try of the state file
	Step   int64     `json:"step,omitempty"` // the newest code that was accepted
	Codes  int       `json:"codes"`          // backup codes left
	Since  time.Time `json:"since,omitzero"`
	Until  time.Time `json:"until,omitzero"` // end of the last rate limit
	Tries  int       `json:"tries,omitempty"`
	Logged int       `json:"logged,omitempty"` // Tries when a rate limit was last logged
}

// reported is for how long after its end a rate limit is reported.
const reported = time.Hour

// readWatch reads what was seen. A damaged file is like none.
func readWatch(t *target.Target) watch {
	var w watch
	if b, err := t.ReadFile(target.Watch); err != nil || json.Unmarshal(b, &w) != nil {
		w = watch{}
	}
	if w.Users == nil {
		w.Users = map[string]seen{}
	}
	return w
}

func (w watch) write(t *target.Target) error {
	b, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return t.WriteFile(target.Watch, append(b, '\n'), 0o600)
}

// of returns the user's rate limit, nil if there is none.
func (w watch) of(t *target.Target, user string, now time.Time) *RateLimit {
	s, err := readState(t, user)
	if err != nil {
		return nil
	}
	was := w.Users[user]
	if was.ID != s.Mark.ID {
		was = seen{}
	}
	tries := readTally(t, user)
	until := later(limitedUntil(s, now), tries.lockedUntil(s.RateLimit, now))
	recent := !was.Until.IsZero() && now.Before(was.Until.Add(reported)) && !was.accepted(s)
	if until.IsZero() && !recent {
		return nil
	}
	r := &RateLimit{Limited: !until.IsZero(), Until: until, Sources: tries.sources()}
	if until.IsZero() {
		r.Until = was.Until
	}
	if !was.accepted(s) {
		r.Since, r.Tries = was.Since, was.Tries
	}
	if len(tries) > r.Tries {
		r.Since, r.Tries = tries.first(), len(tries)
	}
	return r
}

// accepted reports whether the state file shows a code that was accepted since.
func (was seen) accepted(s otp.State) bool {
	return newest(s.Steps) > was.Step || len(s.BackupCodes) < was.Codes
}

// tried brings a user's part up to date with the state file, and logs when a rate limit
// begins and each time that there are ten times as many tries.
func (w watch) tried(t *target.Target, user string, s otp.State, now time.Time, log io.Writer) (changed bool) {
	was, known := w.Users[user]
	if was.ID != s.Mark.ID {
		was, known = seen{}, false
	}
	is := was
	fresh := 0
	for _, try := range s.Tries {
		if try > was.Newest && try <= now.Unix() {
			fresh++
			is.Newest = max(is.Newest, try)
		}
	}
	if fresh == 0 {
		return false
	}
	if known && was.accepted(s) || !known && s.Used && fresh == 1 {
		is, fresh = seen{Newest: is.Newest}, 0
	}
	is.ID, is.Step, is.Codes = s.Mark.ID, newest(s.Steps), len(s.BackupCodes)
	if is.Tries == 0 && fresh > 0 {
		is.Since = now
	}
	is.Tries += fresh
	tries := readTally(t, user)
	if until := later(limitedUntil(s, now), tries.lockedUntil(s.RateLimit, now)); !until.IsZero() && is.Tries > 0 {
		is.Until = until
		if is.Logged == 0 || is.Tries >= 10*is.Logged {
			is.Logged = is.Tries
			fmt.Fprintf(log, "logins: user=%s rate_limited_until=%s tries_without_success=%d since=%s sources=%s\n", user,
				until.UTC().Format(time.RFC3339), is.Tries, is.Since.UTC().Format(time.RFC3339), strings.Join(tries.sources(), ","))
		}
	}
	w.Users[user] = is
	return true
}

func newest(times []int64) int64 {
	if len(times) == 0 {
		return 0
	}
	return slices.Max(times)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
