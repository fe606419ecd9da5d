// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// A RateLimit says that the PAM module refuses a user's codes, right ones too, because of
// the tries before them.
type RateLimit struct {
	Limited bool      `json:"limited"`        // now
	Until   time.Time `json:"until"`          // the next try after this is not refused, if none comes before
	Since   time.Time `json:"since,omitzero"` // when the first of the refused tries was seen
	Refused int       `json:"refused"`        // tries seen since then, all of them refused; there may have been more
}

func (r *RateLimit) String() string {
	s := "rate-limited until "
	if !r.Limited {
		s = "rate-limited within the last hour, until "
	}
	s += r.Until.UTC().Format(time.RFC3339)
	if r.Refused > 0 {
		s += fmt.Sprintf("; at least %d tries refused since %s", r.Refused, r.Since.UTC().Format(time.RFC3339))
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

// seen is one user's part.
type seen struct {
	Newest  int64     `json:"newest"` // the newest try
	Since   time.Time `json:"since,omitzero"`
	Until   time.Time `json:"until,omitzero"`
	Refused int       `json:"refused,omitempty"`
	Logged  int       `json:"logged,omitempty"` // Refused when it was last logged
}

// episode is for how long after its end a rate limit is reported.
const episode = time.Hour

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
	until := limitedUntil(s, now)
	recent := was.Refused > 0 && now.Before(was.Until.Add(episode))
	if until.IsZero() && !recent {
		return nil
	}
	r := &RateLimit{Limited: !until.IsZero(), Until: until}
	if until.IsZero() {
		r.Until = was.Until
	}
	if recent {
		r.Since, r.Refused = was.Since, was.Refused
	}
	return r
}

// tried brings a user's part up to date with his state file, and logs it when a rate
// limit begins and each time that ten times as many tries have been refused.
func (w watch) tried(user string, s otp.State, now time.Time, log io.Writer) (changed bool) {
	was := w.Users[user]
	is := was
	fresh := 0
	for _, t := range s.Tries {
		if t > was.Newest && t <= now.Unix() {
			fresh++
			is.Newest = max(is.Newest, t)
		}
	}
	if fresh == 0 {
		return false
	}
	until := limitedUntil(s, now)
	if !until.IsZero() {
		if was.Until.IsZero() || now.After(was.Until.Add(episode)) {
			is = seen{Newest: is.Newest, Since: now}
		}
		if now.Before(was.Until) {
			is.Refused += fresh // it was limited when they came
		}
		is.Until = until
		if is.Logged == 0 || is.Refused >= 10*is.Logged {
			is.Logged = max(is.Refused, 1)
			fmt.Fprintf(log, "logins: user=%s rate_limited_until=%s refused_tries=%d since=%s\n",
				user, until.UTC().Format(time.RFC3339), is.Refused, is.Since.UTC().Format(time.RFC3339))
		}
	}
	w.Users[user] = is
	return true
}
