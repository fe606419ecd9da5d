// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// Options are the settings of a pass.
type Options struct {
	// Again tries everything now, whatever the next time of an attempt says,
	// and offers envelopes once more on the offered channels that have them.
	Again bool

	// Log gets one line for each attempt. Nil discards them.
	Log io.Writer

	now    func() time.Time
	routes []route
}

// Summary says where the envelopes stand after a pass.
type Summary struct {
	Envelopes int // ready ones

	// Of these, each in one of three states:
	Delivered int
	Offered   int // the policy has no acknowledged channel; nobody has confirmed
	Pending   int

	Sent   int // attempts of this pass that succeeded
	Failed int // attempts of this pass that failed

	// Next is when the earliest attempt of a pending envelope is due. It is
	// zero if none is pending.
	Next time.Time
}

// Run makes one pass over the ready envelopes: it gives each to every channel
// that has not taken it and whose next attempt is due. Each channel gets at
// least one attempt; failed ones are repeated, with growing pauses, only while
// the envelope is not delivered as the policy requires.
//
// The error is [target.ErrLocked] if another pass is under way. An attempt
// that fails is no error of Run: see the summary. A record that cannot be
// written is one, and so is a channel that cannot be used.
func Run(ctx context.Context, t *target.Target, e *policy.Effective, o Options) (Summary, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.now == nil {
		o.now = time.Now
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

	p := pass{Options: o, box: box, require: e.Require, late: map[string]bool{}}
	if boot, err := t.ReadFile(bootID); err == nil {
		p.boot = strings.TrimSpace(string(boot))
	}
	p.to = o.routes
	if p.to == nil {
		p.to, p.err = routes(e.Channels, t)
	}
	return p.run(ctx)
}

const bootID = "/proc/sys/kernel/random/boot_id"

type pass struct {
	Options
	box     *Outbox
	to      []route
	require string
	boot    string
	late    map[string]bool // channels that used up their deadline in this pass
	sum     Summary
	err     error
}

func (p *pass) run(ctx context.Context) (Summary, error) {
	metas, damaged, err := p.box.list(target.Ready)
	p.fail(err)
	for _, name := range damaged {
		p.fail(fmt.Errorf("%s/%.64q: %w", target.Ready, name, errDamaged))
	}
	if len(metas) > 0 && len(p.to) == 0 {
		p.fail(ErrNoChannel)
	}
	p.sum.Envelopes = len(metas)
	for _, m := range metas {
		r, err := p.box.Receipts(m.ID)
		if err != nil && !errors.Is(err, ErrReceipt) {
			p.fail(err)
			p.sum.Pending++
			continue
		}
		if err != nil {
			// To send twice is better than never.
			p.logf("%v; starting a new one", err)
			r = Receipt{}
		}
		r.ID, r.User = m.ID, m.User
		if err := p.envelope(ctx, m, &r); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				p.sum.Envelopes-- // withdrawn since it was listed
				continue
			}
			p.fail(err)
		}
		p.count(r)
	}
	return p.sum, p.err
}

func (p *pass) fail(err error) {
	p.err = errors.Join(p.err, err)
}

// envelope makes the due attempts for one envelope.
func (p *pass) envelope(ctx context.Context, m Meta, r *Receipt) error {
	var item Item
	for _, c := range p.to {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !p.due(c, *r) {
			continue
		}
		if item.Sealed == nil {
			sealed, err := p.box.Envelope(m.ID)
			if err != nil {
				return err
			}
			item = Item{Meta: m, Sealed: sealed}
		}
		if err := p.attempt(ctx, c, item, r); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) due(c route, r Receipt) bool {
	a, tried := r.Channels[c.Name()]
	switch {
	case p.late[c.Name()]:
		return false
	case !tried:
		return true
	case r.Has(c.Name()):
		return p.Again && !c.Acknowledged()
	case r.state(p.to, p.require) != Pending:
		return false
	case p.Again || a.Boot != p.boot:
		return true
	}
	// A clock that was set back must not postpone an attempt for longer than
	// the longest pause.
	now := p.now()
	return !now.Before(a.Next) || a.Next.Sub(now) > longestPause
}

// attempt sends the item and records that. The error is that of a record; no
// attempt is made that has not been recorded before.
func (p *pass) attempt(ctx context.Context, c route, item Item, r *Receipt) error {
	old := r.Channels[c.Name()]
	now := p.now().UTC().Truncate(time.Second)
	a := Attempt{
		State: Failed,
		Tries: old.Tries + 1,
		Last:  now,
		Next:  now.Add(pause(old.Tries + 1)).Truncate(time.Second),
		Boot:  p.boot,
		Error: "interrupted",
	}
	if r.Has(c.Name()) {
		a.State, a.Next, a.Error = old.State, time.Time{}, ""
	}
	if err := p.record(r, c, a); err != nil {
		return err
	}

	cctx, cancel := context.WithTimeout(ctx, c.deadline)
	err := c.Send(cctx, item)
	if end, _ := cctx.Deadline(); err != nil && !time.Now().Before(end) {
		p.late[c.Name()] = true
	}
	cancel()

	switch {
	case err == nil && c.Acknowledged():
		a.State, a.Next, a.Error = Delivered, time.Time{}, ""
	case err == nil:
		a.State, a.Next, a.Error = Offered, time.Time{}, ""
	default:
		a.Error = clip(err.Error())
	}
	if rerr := p.record(r, c, a); rerr != nil {
		return rerr
	}
	if err != nil {
		p.sum.Failed++
		p.logf("user %q, envelope %s, channel %q: attempt %d failed: %s", item.User, item.ID, c.Name(), a.Tries, a.Error)
		return nil
	}
	p.sum.Sent++
	p.logf("user %q, envelope %s, channel %q: %s", item.User, item.ID, c.Name(), a.State)
	return nil
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

// count enters an envelope into the summary.
func (p *pass) count(r Receipt) {
	switch r.state(p.to, p.require) {
	case Delivered:
		p.sum.Delivered++
		return
	case Offered:
		p.sum.Offered++
		return
	}
	p.sum.Pending++
	for _, c := range p.to {
		a := r.Channels[c.Name()]
		if !r.Has(c.Name()) && (p.sum.Next.IsZero() || a.Next.Before(p.sum.Next)) {
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
