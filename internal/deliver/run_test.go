// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
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
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// fakeChannel does what err says, and keeps what it was given.
type fakeChannel struct {
	name  string
	ack   bool
	err   error
	hang  bool
	got   []string
	check func(Item)

	network, one bool
	user         string
}

func (f *fakeChannel) Name() string       { return f.name }
func (f *fakeChannel) Acknowledged() bool { return f.ack }

func (f *fakeChannel) Send(ctx context.Context, item Item) error {
	f.got = append(f.got, item.ID)
	if f.check != nil {
		f.check(item)
	}
	if f.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return f.err
}

// machine is an outbox with channels and a clock.
type machine struct {
	*testing.T
	tg    *target.Target
	box   *Outbox
	clock time.Time
	log   bytes.Buffer
	to    []*fakeChannel
	e     policy.Effective
	again bool
}

func newMachine(t *testing.T, require string, to ...*fakeChannel) *machine {
	box, tg := newOutbox(t)
	m := &machine{T: t, tg: tg, box: box, clock: epoch, to: to}
	m.e.Require = require
	m.boot("one")
	return m
}

func (m *machine) boot(id string) {
	targettest.Put(m, m.tg, bootID, id+"\n", 0o444)
}

func (m *machine) options() Options {
	o := Options{Again: m.again, Log: &m.log, now: func() time.Time { return m.clock }, routes: []route{}}
	for _, c := range m.to {
		deadline := time.Minute // no test is as slow on a busy machine
		if c.hang {
			deadline = 50 * time.Millisecond
		}
		o.routes = append(o.routes, route{Channel: c, deadline: deadline, network: c.network, user: c.user, one: c.one})
	}
	return o
}

func (m *machine) run() Summary {
	m.Helper()
	s, err := Run(m.Context(), m.tg, &m.e, m.options())
	if err != nil {
		m.Fatal(err)
	}
	return s
}

func (m *machine) attempt(id, channel string) Attempt {
	m.Helper()
	r, err := m.box.Receipts(id)
	if err != nil {
		m.Fatal(err)
	}
	return r.Channels[channel]
}

func acked(name string) *fakeChannel   { return &fakeChannel{name: name, ack: true} }
func offered(name string) *fakeChannel { return &fakeChannel{name: name} }

func TestRunOnlyReady(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	must(t, m.box.Stage(meta(aliceID, "alice"), sealed(1), nil))
	if s := m.run(); s != (Summary{}) || len(c.got) != 0 {
		t.Errorf("%+v, sent %q", s, c.got)
	}
	must(t, m.box.Promote(aliceID))
	if s := m.run(); s != (Summary{Envelopes: 1, Delivered: 1, Sent: 1}) || !slices.Equal(c.got, []string{aliceID}) {
		t.Errorf("%+v, sent %q", s, c.got)
	}
	// What was delivered is not sent again, not even on request.
	m.clock = m.clock.Add(24 * time.Hour)
	m.again = true
	if s := m.run(); s != (Summary{Envelopes: 1, Delivered: 1}) || len(c.got) != 1 {
		t.Errorf("%+v, sent %q", s, c.got)
	}
}

func TestRunNothing(t *testing.T) {
	m := newMachine(t, policy.RequireAny, acked("a"))
	if s := m.run(); s != (Summary{}) {
		t.Errorf("%+v", s)
	}
	if m.tg.Exists(target.StateDir) {
		t.Error("a pass without an outbox has made something")
	}
}

func TestRunNoChannel(t *testing.T) {
	m := newMachine(t, policy.RequireAny)
	ready(t, m.box, aliceID, "alice")
	s, err := Run(t.Context(), m.tg, &m.e, m.options())
	if !errors.Is(err, ErrNoChannel) || s.Pending != 1 {
		t.Errorf("%+v, %v", s, err)
	}
}

// The record of an attempt is there before the attempt.
func TestRunRecordsBefore(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	c.check = func(i Item) {
		if a := m.attempt(i.ID, "a"); a.State != Failed || a.Tries != len(c.got) || a.Error == "" || a.Next.IsZero() {
			t.Errorf("during the attempt: %+v", a)
		}
		if has, err := m.box.HasReceipt(i.ID); has || err != nil {
			t.Errorf("has a receipt before it was taken: %v", err)
		}
		if i.User != "alice" || !bytes.Equal(i.Sealed, sealed(500)) {
			t.Errorf("item %+v", i.Meta)
		}
	}
	c.err = errors.New("no")
	m.run()
	m.clock = m.clock.Add(time.Hour)
	c.err = nil
	m.run()
	if len(c.got) != 2 {
		t.Errorf("sent %d times", len(c.got))
	}
	if a := m.attempt(aliceID, "a"); a != (Attempt{State: Delivered, Tries: 2, Last: m.clock, Boot: "one"}) {
		t.Errorf("%+v", a)
	}
}

// Without a record nothing is sent, and what was sent without one is sent
// again.
func TestRunReceiptFails(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	blocker := filepath.Join(m.tg.Root(), receiptFile(aliceID))
	block := func() { must(t, os.MkdirAll(filepath.Join(blocker, "x"), 0o700)) }
	block()
	s, err := Run(t.Context(), m.tg, &m.e, m.options())
	if err == nil || s.Pending != 1 || len(c.got) != 0 {
		t.Errorf("%+v, %v, sent %q", s, err, c.got)
	}
	must(t, os.RemoveAll(blocker))
	c.check = func(Item) { must(t, os.Remove(blocker)); block() }
	s, err = Run(t.Context(), m.tg, &m.e, m.options())
	if err == nil || s.Pending != 1 || s.Sent != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	must(t, os.RemoveAll(blocker))
	c.check = nil
	if s := m.run(); s.Delivered != 1 || len(c.got) != 2 {
		t.Errorf("%+v, sent %q", s, c.got)
	}
}

func TestRunDamagedReceipt(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	targettest.Put(t, m.tg, receiptFile(aliceID), "{", 0o600)
	if s := m.run(); s.Delivered != 1 || len(c.got) != 1 {
		t.Errorf("%+v", s)
	}
}

func TestRunLocked(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	inner := func(Item) {
		if _, err := Run(t.Context(), m.tg, &m.e, m.options()); !errors.Is(err, target.ErrLocked) {
			t.Errorf("a second pass: %v", err)
		}
		// Enrollment goes on meanwhile.
		must(t, m.box.Stage(meta(bobID, "bob"), sealed(1), nil))
	}
	c.check = inner
	m.run()
	c.check = nil
	if s := m.run(); s.Delivered != 1 {
		t.Errorf("the lock was kept: %+v", s)
	}
}

func TestRunPauses(t *testing.T) {
	c := acked("a")
	c.err = errors.New("no")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	var pauses []time.Duration
	for range 20 {
		before := len(c.got)
		s := m.run()
		if len(c.got) != before+1 || s.Failed != 1 || s.Pending != 1 {
			t.Fatalf("%+v, %d attempts", s, len(c.got)-before)
		}
		a := m.attempt(aliceID, "a")
		if a.State != Failed || a.Error != "no" || a.Tries != before+1 || !a.Last.Equal(m.clock) || !s.Next.Equal(a.Next) {
			t.Fatalf("%+v, next %v", a, s.Next)
		}
		pauses = append(pauses, a.Next.Sub(a.Last))
		m.clock = a.Next.Add(-time.Second)
		if s := m.run(); s.Failed != 0 || s.Pending != 1 || !s.Next.Equal(a.Next) {
			t.Fatalf("not due, and: %+v", s)
		}
		m.clock = a.Next
	}
	for i, p := range pauses {
		nominal := min(firstPause<<min(i, 20), longestPause*4/5)
		if p < nominal*3/4-time.Second || p > nominal*5/4+time.Second || p > longestPause {
			t.Errorf("pause %d is %v, about %v expected", i+1, p, nominal)
		}
	}
	if slices.IsSorted(pauses[12:]) && pauses[12] == pauses[19] {
		t.Errorf("no jitter: %v", pauses)
	}
}

// What makes an attempt due before its time.
func TestRunEarly(t *testing.T) {
	for name, change := range map[string]func(*machine){
		"another boot":   func(m *machine) { m.boot("two") },
		"on request":     func(m *machine) { m.again = true },
		"clock set back": func(m *machine) { m.clock = m.clock.Add(-10 * 365 * 24 * time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			c := acked("a")
			c.err = errors.New("no")
			m := newMachine(t, policy.RequireAny, c)
			ready(t, m.box, aliceID, "alice")
			m.run()
			m.run()
			if len(c.got) != 1 {
				t.Fatalf("%d attempts without a reason", len(c.got))
			}
			change(m)
			m.run()
			if len(c.got) != 2 {
				t.Errorf("%d attempts", len(c.got))
			}
		})
	}
}

func TestRunRequire(t *testing.T) {
	no := errors.New("no")
	a := func(err error) *fakeChannel { return &fakeChannel{name: "a", ack: true, err: err} }
	b := func(err error) *fakeChannel { return &fakeChannel{name: "b", ack: true, err: err} }
	x := func(err error) *fakeChannel { return &fakeChannel{name: "x", err: err} }
	y := func(err error) *fakeChannel { return &fakeChannel{name: "y", err: err} }
	for _, tt := range []struct {
		require string
		to      []*fakeChannel
		want    string // the envelope's state
		again   string // which channels get it at the next due pass
	}{
		{policy.RequireAny, []*fakeChannel{a(nil), b(nil)}, Delivered, ""},
		{policy.RequireAny, []*fakeChannel{a(nil), b(no)}, Delivered, ""},
		{policy.RequireAny, []*fakeChannel{a(no), b(nil)}, Delivered, ""},
		{policy.RequireAny, []*fakeChannel{a(no), b(no)}, Pending, "ab"},
		{policy.RequireAll, []*fakeChannel{a(nil), b(nil)}, Delivered, ""},
		{policy.RequireAll, []*fakeChannel{a(nil), b(no)}, Pending, "b"},
		{policy.RequireAny, []*fakeChannel{a(nil), x(no)}, Delivered, ""},
		{policy.RequireAll, []*fakeChannel{a(nil), x(no)}, Delivered, ""},
		{policy.RequireAny, []*fakeChannel{x(nil), a(no)}, Pending, "a"},
		{policy.RequireAny, []*fakeChannel{x(no), a(no)}, Pending, "xa"},
		{policy.RequireAny, []*fakeChannel{x(nil)}, Offered, ""},
		{policy.RequireAny, []*fakeChannel{x(nil), y(no)}, Offered, "y"},
		{policy.RequireAll, []*fakeChannel{x(nil), y(no)}, Pending, "y"},
		{policy.RequireAll, []*fakeChannel{x(nil), y(nil)}, Offered, ""},
		{policy.RequireAny, []*fakeChannel{x(no)}, Pending, "x"},
	} {
		name := tt.require
		for _, c := range tt.to {
			name += fmt.Sprintf(" %s:%v", c.name, c.err == nil)
		}
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, tt.require, tt.to...)
			ready(t, m.box, aliceID, "alice")
			s := m.run()
			got := map[string]int{Delivered: s.Delivered, Offered: s.Offered, Pending: s.Pending}
			if got[tt.want] != 1 || s.Delivered+s.Offered+s.Pending != 1 || s.Next.IsZero() != (tt.want != Pending) {
				t.Errorf("%+v, want %s", s, tt.want)
			}
			for _, c := range tt.to {
				if len(c.got) != 1 {
					t.Errorf("%s was tried %d times", c.name, len(c.got))
				}
				a := m.attempt(aliceID, c.name)
				want := Failed
				if c.err == nil && c.ack {
					want = Delivered
				} else if c.err == nil {
					want = Offered
				}
				if a.State != want || (a.Error == "") != (c.err == nil) {
					t.Errorf("%s: %+v, want %s", c.name, a, want)
				}
				c.got = nil
			}
			m.clock = m.clock.Add(2 * longestPause)
			m.run()
			var again strings.Builder
			for _, c := range tt.to {
				again.WriteString(strings.Repeat(c.name, len(c.got)))
			}
			if again.String() != tt.again {
				t.Errorf("second pass to %q, want %q", &again, tt.again)
			}
		})
	}
}

func TestRunAgain(t *testing.T) {
	a, x := acked("a"), offered("x")
	m := newMachine(t, policy.RequireAny, a, x)
	ready(t, m.box, aliceID, "alice")
	m.run()
	m.again = true
	x.err = errors.New("no")
	s := m.run()
	if len(a.got) != 1 || len(x.got) != 2 || s.Failed != 1 {
		t.Errorf("a %d, x %d, %+v", len(a.got), len(x.got), s)
	}
	// It was offered before, and still is.
	if got := m.attempt(aliceID, "x"); got.State != Offered || got.Tries != 2 || got.Error != "no" {
		t.Errorf("%+v", got)
	}
}

// A channel that hangs is ended by its deadline, stops no other, and does not
// use up its deadline for every envelope.
func TestRunHangs(t *testing.T) {
	h, a := acked("h"), acked("a")
	h.hang = true
	m := newMachine(t, policy.RequireAll, h, a)
	for _, id := range []string{aliceID, bobID, carolID} {
		ready(t, m.box, id, "alice")
	}
	s := m.run()
	if len(a.got) != 3 || len(h.got) != 1 || s.Sent != 3 || s.Failed != 1 || s.Pending != 3 {
		t.Errorf("%+v, a got %q, h got %q", s, a.got, h.got)
	}
	if got := m.attempt(aliceID, "h"); got.State != Failed || got.Tries != 1 {
		t.Errorf("%+v", got)
	}
	// The next pass goes on with those that have not been tried.
	m.run()
	if want := []string{aliceID, carolID}; !slices.Equal(h.got, want) {
		t.Errorf("h got %q, want %q", h.got, want)
	}
}

func TestRunCanceled(t *testing.T) {
	h, a := acked("h"), acked("a")
	m := newMachine(t, policy.RequireAll, h, a)
	ready(t, m.box, aliceID, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	h.check = func(Item) { cancel() }
	h.hang = true
	_, err := Run(ctx, m.tg, &m.e, m.options())
	if !errors.Is(err, context.Canceled) || len(a.got) != 0 {
		t.Errorf("%v, a got %q", err, a.got)
	}
}

// An envelope that is withdrawn during the pass is nobody's fault.
func TestRunWithdrawn(t *testing.T) {
	c := acked("a")
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	ready(t, m.box, bobID, "bob")
	c.check = func(Item) { must(t, m.box.Withdraw(bobID)) }
	if s := m.run(); s != (Summary{Envelopes: 1, Delivered: 1, Sent: 1}) {
		t.Errorf("%+v", s)
	}
}

// Errors end up in receipts and logs: one line, bounded, nothing to control a
// terminal with.
func TestRunErrorText(t *testing.T) {
	c := acked("a")
	c.err = errors.New("bad\nline \x1b[2J" + strings.Repeat("é", 1000))
	m := newMachine(t, policy.RequireAny, c)
	ready(t, m.box, aliceID, "alice")
	m.run()
	got := m.attempt(aliceID, "a").Error
	if strings.ContainsAny(got, "\n\x1b") || len([]rune(got)) > 250 || !strings.HasPrefix(got, "bad line") {
		t.Errorf("%q", got)
	}
	if n := strings.Count(m.log.String(), "\n"); n != 1 {
		t.Errorf("%d lines logged:\n%s", n, &m.log)
	}
	if strings.Contains(m.log.String(), string(sealed(500)[:30])) {
		t.Error("content in the log")
	}
}

func TestStanding(t *testing.T) {
	o, _ := newOutbox(t)
	e := &policy.Effective{}
	e.Require = policy.RequireAny
	e.Channels = []policy.Channel{{Type: policy.ChannelVirtio, Port: "org.example.0"}, {Type: policy.ChannelFile}}
	r := Receipt{ID: aliceID, User: "alice", Channels: map[string]Attempt{"file": {State: Offered}}}
	is := func(want string) {
		t.Helper()
		if got, err := o.Standing(e, r); got != want || err != nil {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
	is(Pending)
	r.Channels["virtio:org.example.0"] = Attempt{State: Delivered}
	is(Delivered)
	r.Channels["virtio:org.example.0"] = Attempt{State: Unconfirmed}
	is(Unconfirmed)
	e.Channels = e.Channels[1:]
	is(Offered)
	e.Channels = append(e.Channels, policy.Channel{Type: policy.ChannelHTTP, URL: "https://h/{id}", User: "bob"})
	is(Offered) // bob's channel is none of alice's
}

func BenchmarkRunIdle(b *testing.B) {
	o, tg := newOutbox(b)
	ready(b, o, aliceID, "alice")
	e := &policy.Effective{}
	e.Channels = []policy.Channel{{Type: policy.ChannelFile}}
	for b.Loop() {
		if _, err := Run(b.Context(), tg, e, Options{}); err != nil {
			b.Fatal(err)
		}
	}
}
