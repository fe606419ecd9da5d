// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

var (
	errCut  = errors.New("cut")
	taken   = Unsent(fmt.Errorf("answer 412: %w", ErrTaken))
	passing = Unsent(fmt.Errorf("answer 409 ConditionalRequestConflict: %w", ErrStatus))
	clock   = Unsent(fmt.Errorf("answer 403: %w", ErrClock))
	nothing = Unsent(errors.New("refused"))
)

// What a place that is taken means depends on what we have done before.
func TestTaken(t *testing.T) {
	for _, tt := range []struct {
		name  string
		sends []error // one a pass
		want  []string
	}{
		{"at the first try", []error{taken, taken, nil}, []string{Tampered, Tampered, Delivered}},
		{"after a try that got nowhere", []error{nothing, taken}, []string{Failed, Tampered}},
		{"after one that may have arrived", []error{errCut, taken}, []string{Failed, Unconfirmed}},
		{"after that and one that got nowhere", []error{errCut, nothing, taken}, []string{Failed, Failed, Unconfirmed}},
		{"refused at the first try", []error{passing, passing, nil}, []string{Failed, Failed, Delivered}},
		{"refused after one that may have arrived", []error{errCut, passing, nil}, []string{Failed, Failed, Delivered}},
		{"refused between that and the proof", []error{errCut, passing, taken}, []string{Failed, Failed, Unconfirmed}},
		{"a clock after that", []error{errCut, clock, nil}, []string{Failed, Failed, Delivered}},
		// What somebody else has left there is not ours because we have tried since.
		{"and then cut", []error{taken, errCut, taken}, []string{Tampered, Tampered, Tampered}},
		{"and then made room", []error{taken, nothing, nil}, []string{Tampered, Tampered, Delivered}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := acked("a"), acked("b")
			m := newMachine(t, policy.RequireAll, a, b)
			ready(t, m.box, aliceID, "alice")
			for i, err := range tt.sends {
				a.err = err
				s := m.run()
				if got := m.attempt(aliceID, "a"); got.State != tt.want[i] || (got.Error == "") != (err == nil) {
					t.Fatalf("after %v: %+v, want %s", err, got, tt.want[i])
				}
				standing := map[string]int{Delivered: s.Delivered, Unconfirmed: s.Unconfirmed, Failed: s.Pending, Tampered: s.Pending}
				if standing[tt.want[i]] != 1 || s.Envelopes != 1 {
					t.Errorf("after %v: %+v", err, s)
				}
				m.clock = m.clock.Add(2 * longestPause)
			}
			n := len(a.got)
			if last := tt.want[len(tt.want)-1]; last == Unconfirmed {
				m.again = true
				m.boot("two")
				m.run()
				if len(a.got) != n {
					t.Error("tried again after unconfirmed")
				}
			}
			if len(b.got) != 1 {
				t.Errorf("the other channel was tried %d times", len(b.got))
			}
			if got := m.attempt(aliceID, "b"); got.State != Delivered {
				t.Errorf("the other channel: %+v", got)
			}
		})
	}
}

// A pass that was killed in the middle of an attempt has left an attempt of our own.
func TestTakenAfterKill(t *testing.T) {
	a := acked("a")
	m := newMachine(t, policy.RequireAny, a)
	ready(t, m.box, aliceID, "alice")
	a.check = func(Item) { panic("killed") }
	func() {
		defer func() { recover() }()
		m.run()
	}()
	if got := m.attempt(aliceID, "a"); got.State != Failed || !got.Unclear || got.Error != "interrupted" {
		t.Errorf("recorded %+v", got)
	}
	a.check, a.err = nil, taken
	m.boot("two")
	if s := m.run(); s.Unconfirmed != 1 || s.Pending != 0 || !s.Next.IsZero() {
		t.Errorf("%+v", s)
	}
}

// Tampering is said once on the console, and each time in the log.
func TestTamperingIsSaid(t *testing.T) {
	a := acked("a")
	a.err = taken
	m := newMachine(t, policy.RequireAny, a)
	ready(t, m.box, aliceID, "alice")
	var console strings.Builder
	o := m.options()
	o.Console = &console
	for range 2 {
		if _, err := Run(t.Context(), m.tg, &m.e, o); err != nil {
			t.Fatal(err)
		}
		m.clock = m.clock.Add(2 * longestPause)
	}
	if got := console.String(); strings.Count(got, "alice") != 1 || !strings.Contains(got, "(a)") {
		t.Errorf("console: %q", got)
	}
	if got := strings.Count(m.log.String(), "TAMPERING"); got != 2 {
		t.Errorf("%d times in the log:\n%s", got, m.log.String())
	}
}

func TestLater(t *testing.T) {
	for _, tt := range []struct{ asked, want time.Duration }{
		{0, firstPause}, {-time.Hour, firstPause}, {30 * time.Minute, 30 * time.Minute}, {5 * longestPause, 5 * longestPause}, {365 * 24 * time.Hour, longestWish},
	} {
		a := acked("a")
		a.err = fmt.Errorf("panel: %w", Unsent(Later(errors.New("busy"), tt.asked)))
		m := newMachine(t, policy.RequireAny, a)
		ready(t, m.box, aliceID, "alice")
		m.run()
		pause := m.attempt(aliceID, "a").Next.Sub(m.clock)
		if pause < tt.want*3/4-time.Second || pause > tt.want*5/4 {
			t.Errorf("asked for %v: pause %v", tt.asked, pause)
		}
		m.clock = m.clock.Add(pause - time.Second)
		m.run()
		if len(a.got) != 1 {
			t.Errorf("asked for %v: tried before", tt.asked)
		}
		m.clock = m.clock.Add(time.Second)
		m.run()
		if len(a.got) != 2 {
			t.Errorf("asked for %v: tried %d times", tt.asked, len(a.got))
		}
	}
}

// What needs no network goes first, for all envelopes, and the first try of a
// network channel waits once a pass.
func TestJitter(t *testing.T) {
	var order []string
	n1, n2, local := acked("n1"), acked("n2"), offered("local")
	for _, c := range []*fakeChannel{n1, n2, local} {
		c.check = func(i Item) { order = append(order, c.name+":"+i.User) }
	}
	n1.network, n2.network = true, true
	n1.err = errors.New("no")
	m := newMachine(t, policy.RequireAll, n1, n2, local)
	m.e.Jitter = "10m"
	ready(t, m.box, aliceID, "alice")
	ready(t, m.box, bobID, "bob")
	o := m.options()
	var waits []time.Duration
	o.wait = func(_ context.Context, d time.Duration) {
		waits = append(waits, d)
		order = append(order, "wait")
	}
	run := func() {
		t.Helper()
		if _, err := Run(t.Context(), m.tg, &m.e, o); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if got, want := strings.Join(order, " "), "local:alice local:bob wait n1:alice n2:alice n1:bob n2:bob"; got != want {
		t.Errorf("order %q, want %q", got, want)
	}
	m.clock = m.clock.Add(2 * longestPause)
	run()
	if len(waits) != 1 || len(n1.got) != 4 {
		t.Errorf("waited %v; the second try of a channel waits for its pause only", waits)
	}
	// It is random, and within its bounds.
	for range 20 {
		must(t, m.box.Withdraw(aliceID))
		must(t, os.Remove(filepath.Join(m.tg.Root(), receiptFile(aliceID))))
		ready(t, m.box, aliceID, "alice")
		run()
	}
	if slices.Max(waits) == slices.Min(waits) || slices.Max(waits) > 10*time.Minute || slices.Min(waits) < 0 {
		t.Errorf("waited %v", waits)
	}
	m.e.Jitter = "0s"
	before := len(waits)
	must(t, m.box.Withdraw(aliceID))
	must(t, os.Remove(filepath.Join(m.tg.Root(), receiptFile(aliceID))))
	ready(t, m.box, aliceID, "alice")
	run()
	if len(waits) != before {
		t.Error("waited, and was told not to")
	}
}

// A channel that takes one envelope in its life gets no second one, and one for
// a user gets no other's.
func TestOneEnvelope(t *testing.T) {
	for _, tt := range []struct {
		name   string
		first  error
		second bool // whether the envelope of a reset may go there
	}{
		{"taken", nil, false},
		{"may be taken", errCut, false},
		{"not taken", nothing, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			one, file := acked("one"), offered("file")
			one.one, one.user, one.err = true, "alice", tt.first
			m := newMachine(t, policy.RequireAny, one, file)
			ready(t, m.box, aliceID, "alice")
			ready(t, m.box, bobID, "bob")
			m.run()
			if !slices.Equal(one.got, []string{aliceID}) || len(file.got) != 2 {
				t.Fatalf("one got %q, file %q", one.got, file.got)
			}
			// The reset takes the first envelope away.
			must(t, m.box.Withdraw(aliceID))
			ready(t, m.box, carolID, "alice")
			one.err = nil
			m.clock = m.clock.Add(2 * longestPause)
			s := m.run()
			want := []string{aliceID}
			if tt.second {
				want = append(want, carolID)
			}
			if !slices.Equal(one.got, want) {
				t.Errorf("one got %q, want %q", one.got, want)
			}
			if s.Pending != 0 || s.Offered+s.Delivered != 2 {
				t.Errorf("%+v: the other channel is what counts for those that cannot go there", s)
			}
		})
	}
}

// Within one pass as well only one goes, and what is left without a way is said.
func TestNoRoute(t *testing.T) {
	one := acked("one")
	one.one = true
	m := newMachine(t, policy.RequireAny, one)
	ready(t, m.box, aliceID, "alice")
	ready(t, m.box, carolID, "alice")
	m.run()
	if len(one.got) != 1 {
		t.Errorf("got %q", one.got)
	}
	s, err := Run(t.Context(), m.tg, &m.e, m.options())
	if !errors.Is(err, ErrNoRoute) || s.Pending != 1 || s.Delivered != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// An envelope stays for keep, counted in days on which it was seen.
func TestKeep(t *testing.T) {
	const day = 24 * time.Hour
	f := offered("f")
	m := newMachine(t, policy.RequireAny, f)
	m.e.Keep = "30d"
	ready(t, m.box, aliceID, "alice")
	ready(t, m.box, bobID, "bob")
	f.check = func(i Item) {
		f.err = nil
		if i.ID == bobID {
			f.err = errors.New("no") // nobody has ever taken bob's
		}
	}
	pass := func(want int) {
		t.Helper()
		m.run()
		m.run()
		if got := strings.Fields(ids(t, m.box.Ready)); len(got) != want {
			t.Fatalf("%v: ready %q, want %d", m.clock, got, want)
		}
	}
	pass(2)
	// A clock that is put right, by years, is one day more.
	m.clock = m.clock.Add(20 * 365 * day)
	pass(2)
	// One that is a day behind at each boot, until it is set, is none.
	for range 40 {
		m.clock = m.clock.Add(-day)
		pass(2)
		m.clock = m.clock.Add(day)
		pass(2)
	}
	for range 28 {
		m.clock = m.clock.Add(day)
		pass(2)
	}
	// The enrollment is at work: not now.
	unlock, err := m.tg.Lock(target.StateDir)
	must(t, err)
	m.clock = m.clock.Add(day)
	pass(2)
	unlock()
	pass(1)
	if got := ids(t, m.box.Ready); got != bobID {
		t.Errorf("left %q, want the one that nobody has", got)
	}
	if has, err := m.box.HasReceipt(aliceID); !has || err != nil {
		t.Errorf("the receipt is gone: %v", err)
	}
}

// What an acknowledged channel is still to take does not go because somebody may
// have picked it up elsewhere. Its days begin when nobody is to take it any more.
func TestKeepUndelivered(t *testing.T) {
	for _, tt := range []struct {
		require string
		sends   error // to the acknowledged channel, at the end
		goes    bool
	}{
		{policy.RequireAny, errors.New("no"), false},
		{policy.RequireAny, taken, false},
		{policy.RequireAny, nil, true},
		{policy.RequireAll, nil, false}, // the other one has not
	} {
		a, b, f := acked("a"), acked("b"), offered("f")
		a.err, b.err = errors.New("no"), errors.New("no")
		m := newMachine(t, tt.require, f, a, b)
		m.e.Keep = "3d"
		ready(t, m.box, aliceID, "alice")
		days := func(n int) {
			for range n {
				m.run()
				m.clock = m.clock.Add(24 * time.Hour)
			}
		}
		days(6)
		if len(f.got) != 1 || ids(t, m.box.Ready) != aliceID {
			t.Fatalf("offered %d times, ready %q", len(f.got), ids(t, m.box.Ready))
		}
		before := len(a.got)
		a.err = tt.sends
		days(3)
		if ids(t, m.box.Ready) != aliceID {
			t.Errorf("%s, %v: gone before its time", tt.require, tt.sends)
		}
		days(2)
		if gone := ids(t, m.box.Ready) == ""; gone != tt.goes || len(a.got) == before {
			t.Errorf("%s, %v: gone %v, tried %d times", tt.require, tt.sends, gone, len(a.got)-before)
		}
	}
}

// What channels have left of an envelope goes with it.
func TestRetire(t *testing.T) {
	box, tg := newOutbox(t)
	e := &policy.Effective{}
	e.Channels = []policy.Channel{{Type: policy.ChannelFile}, {Type: policy.ChannelConsole}}
	for i, id := range []string{aliceID, bobID} {
		must(t, box.Stage(meta(id, []string{"alice", "bob"}[i]), realEnvelope(t), nil))
		must(t, box.Promote(id))
	}
	if _, err := Run(t.Context(), tg, e, Options{}); err != nil {
		t.Fatal(err)
	}
	must(t, box.Retire(e, meta(aliceID, "alice")))
	must(t, box.Retire(e, meta(aliceID, "alice")))
	entries, err := tg.ReadDir(target.Envelopes)
	must(t, err)
	if len(entries) != 1 || !strings.Contains(entries[0].Name(), bobID) || ids(t, box.Ready) != bobID {
		t.Errorf("left %v, ready %q", entries, ids(t, box.Ready))
	}
}
