// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"strconv"
	"time"
)

const day = 24 * time.Hour

var units = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': day}

// Duration reads a length of time as a policy has it: a whole number and one of
// s, m, h and d.
func Duration(s string) (time.Duration, error) {
	if len(s) < 2 || len(s) > 10 || !made(s[:len(s)-1], digit, 9) || units[s[len(s)-1]] == 0 {
		return 0, ErrDuration
	}
	n, err := strconv.Atoi(s[:len(s)-1])
	if err != nil || s[0] == '0' && len(s) > 2 {
		return 0, ErrDuration
	}
	// The largest number of days is more than a Duration holds.
	unit := units[s[len(s)-1]]
	if n > int(1<<62/unit) {
		return 0, ErrDuration
	}
	return time.Duration(n) * unit, nil
}

func (v *validator) duration(path, s string, least, most time.Duration) {
	if s == "" {
		return
	}
	d, err := Duration(s)
	switch {
	case err != nil:
		v.fail(path, show(s), ErrDuration, `write a number and one of s, m, h, d, as in "5s" or "30d"`)
	case d < least || d > most:
		v.fail(path, s, ErrRange, "use "+showDuration(least)+" to "+showDuration(most))
	}
}

// showDuration is the shortest way to write a length of time in a policy.
func showDuration(d time.Duration) string {
	for _, unit := range "dhm" {
		if u := units[byte(unit)]; d >= u && d%u == 0 {
			return itoa(int(d/u)) + string(unit)
		}
	}
	return itoa(int(d/time.Second)) + "s"
}

// JitterTime is the longest that the first try of a network channel waits.
func (e *Effective) JitterTime() time.Duration { return mustDuration(e.Jitter, DefaultJitter) }

// KeepTime is how long an envelope stays in the outbox.
func (e *Effective) KeepTime() time.Duration { return mustDuration(e.Keep, DefaultKeep) }

// mustDuration reads what was validated, or the default where nothing is said.
func mustDuration(s, otherwise string) time.Duration {
	if d, err := Duration(s); err == nil {
		return d
	}
	d, _ := Duration(otherwise)
	return d
}
