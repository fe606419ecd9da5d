// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// TestLimitedUntil follows rate_limit of the module: the try at hand counts, and a try of
// exactly Seconds ago still does.
func TestLimitedUntil(t *testing.T) {
	const now = 1_000_000
	for name, tt := range map[string]struct {
		limit otp.RateLimit
		tries []int64
		want  int64 // 0: not limited
	}{
		"none":                       {otp.Standard, nil, 0},
		"two":                        {otp.Standard, []int64{now, now - 1}, 0},
		"three":                      {otp.Standard, []int64{now, now - 1, now - 9}, now - 9 + 31},
		"the oldest just in":         {otp.Standard, []int64{now, now - 1, now - 30}, now + 1},
		"the oldest just out":        {otp.Standard, []int64{now, now - 1, now - 31}, 0},
		"more than the limit":        {otp.Standard, []int64{now - 5, now - 6, now - 7, now - 8}, now - 7 + 31},
		"the clock was set back":     {otp.Standard, []int64{now + 100, now + 99, now - 1}, 0},
		"strict":                     {otp.Strict, []int64{now, now - 10, now - 20, now - 30, now - 40}, now - 40 + 301},
		"no limit, enrolled by hand": {otp.RateLimit{}, []int64{now, now, now}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := limitedUntil(otp.State{RateLimit: tt.limit, Tries: tt.tries}, time.Unix(now, 0))
			if tt.want == 0 && !got.IsZero() || tt.want != 0 && got.Unix() != tt.want {
				t.Errorf("%v, want %d", got, tt.want)
			}
		})
	}
}

// tallyOf makes a counter as pam_faillock does.
func tallyOf(source string, times ...int64) string {
	var b bytes.Buffer
	for _, at := range times {
		r := make([]byte, 64)
		copy(r, source)
		binary.NativeEndian.PutUint16(r[54:], 3) // valid, a host
		binary.NativeEndian.PutUint64(r[56:], uint64(at))
		b.Write(r)
	}
	return b.String()
}

// TestTally: status shows the lock of pam_faillock, of whose file nothing else is believed.
func TestTally(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	at := now.Unix()
	for name, tt := range map[string]struct {
		file    string
		want    int64 // 0: not locked
		sources string
	}{
		"empty":           {"", 0, ""},
		"two":             {tallyOf("203.0.113.7", at, at), 0, ""},
		"three":           {tallyOf("203.0.113.7", at, at, at), at + 31, "203.0.113.7"},
		"three long ago":  {tallyOf("203.0.113.7", at-900, at-901, at-902), 0, ""},
		"several sources": {tallyOf("2001:db8::1", at) + tallyOf("203.0.113.7", at, at), at + 31, "2001:db8::1 203.0.113.7"},
		"a hostile name":  {tallyOf("\x1b[2J evil", at, at, at), at + 31, ""},
		"not a counter":   {tallyOf("203.0.113.7", at, at, at)[1:], 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			m.put(target.PAMTallyDir+"/alice", tt.file)
			got := readWatch(m.t).of(m.t, "alice", now)
			if tt.want == 0 {
				if got != nil {
					t.Errorf("%v, want no limit", got)
				}
				return
			}
			if got == nil || !got.Limited || got.Until.Unix() != tt.want || got.Tries != 3 || strings.Join(got.Sources, " ") != tt.sources {
				t.Errorf("%v, want until %d from %q", got, tt.want, tt.sources)
			}
		})
	}
}

// try writes what the module does at a try: a time, and the step of a code it accepts.
func (m *machine) try(at time.Time, step int64) {
	m.Helper()
	s, err := readState(m.t, "alice")
	if err != nil {
		m.Fatal(err)
	}
	s.Tries = append(s.Tries, at.Unix())
	s.Tries = s.Tries[max(len(s.Tries)-s.RateLimit.Attempts, 0):]
	if step > 0 {
		s.Steps = append(s.Steps, step)
	}
	b, err := s.Format()
	if err != nil {
		m.Fatal(err)
	}
	if err := m.t.WriteFile(stateFile("alice"), b, 0o400); err != nil {
		m.Fatal(err)
	}
	o := m.options()
	o.Now = func() time.Time { return at }
	if err := Logins(m.Context(), m.t, o); err != nil {
		m.Fatal(err)
	}
}

// TestRateLimit: a holder of the key tries for an hour. Status shows until when the user
// is kept out and how many tries there were; the journal has few lines of it.
func TestRateLimit(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nissuer: Example\nrate_limit: strict\n") // its end does not depend on this machine's load
	m.mustRun()
	begin := time.Now().Add(-20 * time.Minute).Truncate(time.Second)
	now, lines := begin, 0
	for range 120 {
		m.try(now, 0)
		lines += strings.Count(m.log.String(), "logins: user=alice rate_limited_until=")
		now = now.Add(10 * time.Second)
	}
	if lines < 2 || lines > 4 {
		t.Errorf("%d lines in the journal, want a few", lines)
	}
	st, err := ReadStatus(t.Context(), m.t)
	if err != nil {
		t.Fatal(err)
	}
	r := user(st, "alice").RateLimit
	if r == nil || !r.Limited || r.Tries != 120 || !r.Since.Equal(begin) || r.Until.Before(time.Now()) {
		t.Fatalf("rate limit %+v, want 120 tries since %v", r, begin)
	}
	i := slices.IndexFunc(st.Problems, func(p Problem) bool { return p.Code == CodeRateLimited && p.User == "alice" })
	if i < 0 || !strings.Contains(st.Problems[i].Fix, "--user alice --reset") {
		t.Errorf("problems %+v", st.Problems)
	}

	// A reset gives the owner a way through at once.
	m.put(target.PAMTallyDir+"/alice", tallyOf("203.0.113.7", now.Unix(), now.Unix(), now.Unix()))
	if _, err := m.reset("alice"); err != nil {
		t.Fatal(err)
	}
	if st, err = ReadStatus(t.Context(), m.t); err != nil || user(st, "alice").RateLimit != nil {
		t.Errorf("after the reset: %+v, %v", user(st, "alice").RateLimit, err)
	}
	if b := m.read(target.PAMTallyDir + "/alice"); b != "" {
		t.Error("the tally was kept")
	}
}

// A login with a code ends the count: the owner who mistypes twice is no attacker.
func TestRateLimitAfterALogin(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	now := time.Now().Truncate(time.Second)
	for i := range 3 {
		m.try(now.Add(time.Duration(i-100)*time.Second), 0)
	}
	st, err := ReadStatus(t.Context(), m.t)
	if err != nil {
		t.Fatal(err)
	}
	if r := user(st, "alice").RateLimit; r == nil || r.Limited {
		t.Errorf("after three tries: %+v; want a rate limit within the last hour", r)
	}
	if slices.ContainsFunc(st.Problems, func(p Problem) bool { return p.Code == CodeRateLimited }) {
		t.Errorf("a limit that has ended is a problem: %+v", st.Problems)
	}
	m.try(now.Add(-50*time.Second), 55_555_555)
	if st, err := ReadStatus(t.Context(), m.t); err != nil || user(st, "alice").RateLimit != nil {
		t.Errorf("after a login: %+v, %v", user(st, "alice").RateLimit, err)
	}
}
