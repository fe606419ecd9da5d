// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/cenkalti/backoff/v5"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// ErrNoChannel means that envelopes wait and the policy names no channel that
// could take them.
var ErrNoChannel = errors.New("no usable channel in the policy; add one under channels")

// ErrNoRoute means that the policy's channels are all for others, or take one
// envelope in their life and have had it.
var ErrNoRoute = errors.New("no channel of the policy can carry it; add one under channels in the user-data, or have it printed by: totp-agent reset")

// Options are the settings of a pass.
type Options struct {
	// Again tries everything now, whatever the next time of an attempt says,
	// and offers envelopes once more on the offered channels that have them.
	Again bool

	// Log gets one line for each attempt. Nil discards them.
	Log io.Writer

	// Console is where people are told that somebody else has been in an
	// envelope's place. Nil: nowhere.
	Console io.Writer

	// Sender opens a connection to a process that makes one attempt on a channel
	// which speaks to the network: [Serve] at the other end. Nil: this process does.
	Sender func(context.Context) (SenderConn, error)

	now    func() time.Time
	wait   func(context.Context, time.Duration)
	routes []route
	atStep func(step string) // between the steps of an attempt, where the process may be killed
}

// Summary says where the envelopes stand after a pass.
type Summary struct {
	Envelopes int // ready ones

	// Of these, each in one of four states:
	Delivered   int
	Offered     int // the policy has no acknowledged channel; nobody has confirmed
	Unconfirmed int // it may have arrived, and no channel is left that could say so
	Pending     int

	Retired int // envelopes that had been kept for long enough, and are gone

	Sent   int // attempts of this pass that succeeded
	Failed int // attempts of this pass that failed

	// Next is when the earliest attempt of a pending envelope is due. It is
	// zero if none is pending.
	Next time.Time
}

// Run makes one pass over the ready envelopes: it gives each to every channel
// that has not taken it and whose next attempt is due. Each channel gets at
// least one attempt; failed ones are repeated, with growing pauses, only while
// the envelope is not delivered as the policy requires: an offered channel that
// has it ends nothing.
//
// The error is [target.ErrLocked] if another pass is under way. An attempt
// that fails is no error of Run: see the summary. A record that cannot be
// written is one, and so is a channel that cannot be used.
func Run(ctx context.Context, t *target.Target, e *policy.Effective, o Options) (Summary, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Console == nil {
		o.Console = io.Discard
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.wait == nil {
		o.wait = pauseFor
	}
	if o.atStep == nil {
		o.atStep = func(string) {}
	}
	box := OpenOutbox(t)
	if !t.Exists(target.Outbox) {
		return Summary{}, nil
	}
	unlock, err := t.Lock(target.Outbox)
	if err != nil {
		return Summary{}, err
	}
	defer unlock()

	p := pass{Options: o, box: box, policy: e, late: map[string]bool{}}
	if boot, err := t.ReadFile(bootID); err == nil {
		p.boot = strings.TrimSpace(string(boot))
	}
	p.to = o.routes
	if p.to == nil {
		p.fail(box.makeKey(e.Channels))
		p.to, err = routes(e.Channels, t)
		p.fail(err)
		if o.Sender != nil {
			for i, r := range p.to {
				p.to[i] = r.viaSender(t, o.Sender)
			}
		}
	}
	p.fail(box.rename(p.to))
	return p.run(ctx)
}

const bootID = "/proc/sys/kernel/random/boot_id"

type pass struct {
	Options
	box    *Outbox
	policy *policy.Effective
	to     []route
	places places
	boot   string
	late   map[string]bool // channels that used up their deadline in this pass
	waited bool            // for the first try of a network channel
	sum    Summary
	errs   []error
}

// A parcel is an envelope in this pass.
type parcel struct {
	Meta
	receipt Receipt
	to      []route
	failed  bool // no more of it in this pass
}

func (p *pass) run(ctx context.Context) (Summary, error) {
	metas, damaged, err := p.box.list(target.Ready)
	p.fail(err)
	p.fail(p.dropDamaged(damaged))
	p.fail(p.box.sweep())
	if len(metas) > 0 && len(p.to) == 0 {
		p.fail(ErrNoChannel)
	}
	p.places, err = p.box.taken(p.to)
	p.fail(err)
	var parcels []*parcel
	for _, m := range metas {
		if q := p.parcel(m); q != nil {
			parcels = append(parcels, q)
		}
	}
	p.sum.Envelopes = len(metas)
	// What needs no network first: it may be all that there is.
	for _, network := range []bool{false, true} {
		for _, q := range parcels {
			p.send(ctx, q, network)
		}
	}
	p.fail(ctx.Err())
	for _, q := range parcels {
		q.to = forEnvelope(q.to, p.places, q.ID, q.User) // another may have taken a place
		if !errors.Is(p.age(q), fs.ErrNotExist) {
			p.count(q)
		}
	}
	return p.sum, errors.Join(p.errs...)
}

// parcel reads what is known of an envelope.
func (p *pass) parcel(m Meta) *parcel {
	r, err := p.box.Receipts(m.ID)
	if err != nil && !errors.Is(err, ErrReceipt) {
		p.fail(err)
		p.sum.Pending++
		return nil
	}
	if err != nil {
		// To send twice is better than never.
		p.logf("%v; starting a new one", err)
		r = Receipt{used: p.box.used(m.ID)}
	}
	r.ID, r.User = m.ID, m.User
	q := &parcel{Meta: m, receipt: r, to: forEnvelope(p.to, p.places, m.ID, m.User)}
	if len(q.to) == 0 && len(p.to) > 0 {
		p.fail(fmt.Errorf("user %q, envelope %s: %w", m.User, m.ID, ErrNoRoute))
	}
	return q
}

func (p *pass) fail(err error) {
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

// send makes the due attempts for one envelope, by the channels of one kind.
func (p *pass) send(ctx context.Context, q *parcel, network bool) {
	var sealed, compact []byte
	for _, c := range q.to {
		if c.network != network || q.failed || ctx.Err() != nil || !p.due(c, q) {
			continue
		}
		var err error
		if sealed == nil {
			sealed, err = p.box.Envelope(q.ID)
		}
		if err == nil && c.compact {
			compact, err = p.box.Compact(q.ID)
		}
		if err == nil {
			err = p.attempt(ctx, c, Item{Meta: q.Meta, Sealed: sealed, Compact: compact}, &q.receipt)
		}
		if err != nil {
			q.failed = true
			if !errors.Is(err, fs.ErrNotExist) || p.box.t.Exists(path.Join(target.Ready, q.ID)) {
				p.fail(err)
			}
		}
	}
}

func (p *pass) due(c route, q *parcel) bool {
	a, tried := q.receipt.Channels[c.Name()]
	switch {
	case p.late[c.Name()], q.receipt.over(c):
		return false
	case c.one && p.places[place(c.Name())] != "" && p.places[place(c.Name())] != q.ID:
		return false // an attempt of this pass
	case !tried:
		return true
	case a.State == Unconfirmed && c.look() == nil:
		return false
	case q.receipt.Has(c.Name()):
		return p.Again && !c.Acknowledged()
	case p.Again:
		return true
	case q.receipt.state(q.to, p.policy.Require) == Delivered:
		return false
	case a.Boot != p.boot:
		return true
	}
	// A clock that was set back must not postpone an attempt.
	now := p.now()
	return !now.Before(a.Next) || now.Before(a.Last)
}

// attempt sends the item and records that. The error is that of a record; no
// attempt is made that has not been recorded before.
func (p *pass) attempt(ctx context.Context, c route, item Item, r *Receipt) error {
	old := r.Channels[c.Name()]
	if c.network && old.Tries == 0 && !p.waited {
		p.waited = true
		if longest := p.policy.JitterTime(); longest > 0 {
			p.wait(ctx, rand.N(longest))
		}
	}
	now := p.now().UTC().Truncate(time.Second)
	a := Attempt{
		State:   Failed,
		Tries:   old.Tries + 1,
		Last:    now,
		Next:    now.Add(pause(old.Tries + 1)).Truncate(time.Second),
		Boot:    p.boot,
		Error:   "interrupted",
		Unclear: true,
	}
	switch {
	case r.Has(c.Name()):
		a.State, a.Next, a.Error, a.Unclear = old.State, time.Time{}, "", false
	case old.State == Tampered, old.State == Unconfirmed:
		a.State = old.State // until it is delivered
	}
	try := c.Send
	if old.State == Unconfirmed {
		try = c.look()
	}
	if err := p.record(r, c, a); err != nil {
		return err
	}
	p.atStep("recorded")

	cctx, cancel := context.WithTimeout(ctx, c.deadline)
	err := try(cctx, item)
	if end, _ := cctx.Deadline(); err != nil && !time.Now().Before(end) {
		p.late[c.Name()] = true
	}
	cancel()
	p.atStep("sent")

	if err != nil {
		a.Error = clip(err.Error())
		a.Unclear = (old.Unclear || maySent(err)) && !r.Has(c.Name())
		a.Next = last(a.Next, now.Add(wish(err)))
	}
	own := old.Unclear && old.State != Tampered && !errors.Is(err, errForeign)
	switch {
	case err == nil && c.Acknowledged():
		a.State, a.Next, a.Error, a.Unclear = Delivered, time.Time{}, "", false
	case err == nil:
		a.State, a.Next, a.Error, a.Unclear = Offered, time.Time{}, "", false
	case own && errors.Is(err, ErrTaken):
		a.State = Unconfirmed
		if c.look() == nil {
			a.Next = time.Time{}
		}
	case errors.Is(err, ErrTaken):
		a.State = Tampered
	}
	if rerr := p.record(r, c, a); rerr != nil {
		return rerr
	}
	if c.one && (a.State == Delivered || a.State == Unconfirmed || a.Unclear) {
		p.places[place(c.Name())] = item.ID
	}
	p.report(c, item, old, a, err)
	return nil
}

// report tells the log how an attempt went, and people of what they should know.
func (p *pass) report(c route, item Item, old, a Attempt, err error) {
	about := fmt.Sprintf("user %q, envelope %s, channel %q", item.User, item.ID, c.Name())
	switch {
	case err == nil:
		p.sum.Sent++
		p.logf("%s: %s", about, a.State)
		return
	case a.State == Unconfirmed:
		p.logf("%s: attempt %d: unconfirmed: an earlier attempt may have left the envelope there: %s", about, a.Tries, a.Error)
	case a.State == Tampered:
		p.logf("%s: attempt %d: TAMPERING: what is there is not from this machine: %s", about, a.Tries, a.Error)
	default:
		p.logf("%s: attempt %d failed: %s", about, a.Tries, a.Error)
	}
	p.sum.Failed++
	if a.State == Tampered && old.State != Tampered {
		// A console that cannot be written is no reason to fail: status and log
		// say the same.
		fmt.Fprintf(p.Console, "\r\ntotp-agent: somebody else has been in the place where the enrollment card of %s was to go (%s).\r\n"+
			"Open no card from there without checking its origin; \"totp-agent status\" says more.\r\n", item.User, c.Name())
	}
}

func last(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (p *pass) record(r *Receipt, c route, a Attempt) error {
	channels := map[string]Attempt{}
	for name, b := range r.Channels {
		channels[name] = b
	}
	channels[c.Name()] = a
	changed := *r
	changed.Channels = channels
	if err := p.box.saveReceipt(changed); err != nil {
		return fmt.Errorf("receipt of %q: %w", r.ID, err)
	}
	*r = changed
	return nil
}

// age counts the day, and lets go of an envelope that has been kept as long as the
// policy says since it was delivered, or since it was offered where nothing more can
// be had. One that is still to be delivered stays, and is tried for ever.
// The error is [fs.ErrNotExist] if the envelope is gone.
func (p *pass) age(q *parcel) error {
	if !p.box.t.Exists(path.Join(target.Ready, q.ID)) {
		p.sum.Envelopes-- // withdrawn since it was listed, and maybe left somewhere since that
		p.fail(takeBack(p.to, q.Meta))
		return fs.ErrNotExist
	}
	if q.failed || q.receipt.state(q.to, p.policy.Require) == Pending {
		return nil
	}
	// A day that was counted is not counted again when a wrong clock is put right.
	if today := p.now().UTC().Format(time.DateOnly); q.receipt.Day < today {
		changed := q.receipt
		changed.Day, changed.Days = today, changed.Days+1
		if err := p.box.saveReceipt(changed); err != nil {
			p.fail(fmt.Errorf("receipt of %q: %w", q.ID, err))
			return nil
		}
		q.receipt = changed
	}
	if time.Duration(q.receipt.Days-1)*24*time.Hour < p.policy.KeepTime() {
		return nil
	}
	unlock, err := p.box.t.Lock(target.StateDir)
	if errors.Is(err, target.ErrLocked) {
		return nil // an enrollment is at work; the next pass comes
	}
	if err != nil {
		p.fail(err)
		return nil
	}
	defer unlock()
	if err := p.box.retire(p.to, q.Meta); err != nil {
		p.fail(err)
		return nil
	}
	p.sum.Retired++
	p.logf("user %q, envelope %s: kept for %d days, and removed", q.User, q.ID, q.receipt.Days-1)
	return nil
}

// count enters an envelope into the summary.
func (p *pass) count(q *parcel) {
	switch q.receipt.state(q.to, p.policy.Require) {
	case Delivered:
		p.sum.Delivered++
		return
	case Offered:
		p.sum.Offered++
		return
	case Unconfirmed:
		p.sum.Unconfirmed++
		return
	}
	p.sum.Pending++
	for _, c := range q.to {
		a := q.receipt.Channels[c.Name()]
		if a.State == Unconfirmed || q.receipt.Has(c.Name()) || q.receipt.over(c) {
			continue
		}
		if p.sum.Next.IsZero() || a.Next.Before(p.sum.Next) {
			p.sum.Next = a.Next
		}
	}
}

func (p *pass) logf(format string, args ...any) {
	fmt.Fprintf(p.Log, "deliver: "+format+"\n", args...)
}

const (
	firstPause   = 15 * time.Second
	longestPause = time.Hour
)

// pause returns how long to wait after so many attempts: twice as long each
// time up to an hour, give or take a quarter, so that many machines started
// together do not stay together.
func pause(tries int) time.Duration {
	b := backoff.ExponentialBackOff{
		InitialInterval:     firstPause,
		RandomizationFactor: 0.25,
		Multiplier:          2,
		MaxInterval:         longestPause * 4 / 5, // so that no pause exceeds longestPause
	}
	b.Reset()
	d := b.NextBackOff()
	for range min(tries, 16) - 1 {
		d = b.NextBackOff()
	}
	return d
}

// clip makes an error's text fit for a receipt and a log: one line, printable,
// of bounded length.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s)
	const most = 240
	if rs := []rune(s); len(rs) > most {
		s = string(rs[:most]) + "..."
	}
	return s
}
