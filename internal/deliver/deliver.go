// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package deliver brings sealed envelopes out of the machine: it holds the
// outbox they wait in, the channels they leave by, and the pass that tries
// every channel until each envelope has been taken.
//
// The receiving ends are in the subpackages receive (the host's end of a
// virtio port) and console (the codec that finds envelopes in a console log),
// which need nothing of the machine that sends.
//
// # Promises
//
// Only envelopes that are ready leave, as they are: sealed. An attempt is
// recorded durably before it is made, and its outcome after; an envelope
// counts as delivered only once the record of that is on disk. A channel that
// has taken an envelope does not get it again unless an offer is repeated on
// request. A channel that fails or hangs stops no other, and never blocks
// beyond its deadline. Errors in receipts and logs hold no content.
//
// # Limits
//
// A record that cannot be written after an envelope was sent leads to the
// same envelope being sent once more, so receivers must be idempotent. Offered
// channels confirm nothing.
package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// ErrType means that no channel of this type is registered.
var ErrType = errors.New("not a channel type of this version")

// Item is an envelope on its way out.
type Item struct {
	Meta
	Sealed []byte // a binary age file

	// Compact is a binary age file of the card's compact form, for drivers that
	// want it; nil if there is none.
	Compact []byte
}

// A Channel is one way out of the machine.
type Channel interface {
	// Name identifies the channel in receipts, logs and the status: its type,
	// with what tells it from others of its type. It holds no secret.
	Name() string

	// Acknowledged tells whether Send returns nil only when somebody has
	// confirmed having the envelope. Otherwise the envelope is offered: it
	// lies there to be picked up.
	Acknowledged() bool

	// Send gives the envelope to the channel. It returns soon after ctx is
	// done, and its errors hold nothing of the envelope's content and no
	// secret of the channel's. [ErrTaken], [Unsent] and [Later] say more of one.
	Send(ctx context.Context, item Item) error
}

// A Withdrawer is a channel that leaves something on the machine, which has to
// go when nobody needs the envelope any more.
type Withdrawer interface {
	// Withdraw removes what Send has left of an envelope. It is no error if
	// there is nothing.
	Withdraw(m Meta) error
}

// A Chooser is a channel that refuses some envelopes for what they are, each time.
type Chooser interface {
	// Refuses returns why Send would refuse a binary age file, nil if it would not.
	Refuses(sealed []byte) error
}

// A Looker is a channel that can look whether it is its own envelope that it has found
// in a place, after an attempt whose end it has not seen.
type Looker interface {
	// Look sends nothing, and returns what Send does of a place that is taken.
	Look(ctx context.Context, item Item) error
}

// A Driver makes the channels of one type.
type Driver struct {
	Type         string // as in the policy
	Acknowledged bool   // what its channels' Acknowledged returns

	// Network is set where many machines share the other end. Such channels come
	// after the others in a pass, and their first try waits for a random while.
	Network bool

	// Compact says that the channels have little room, and carry Item.Compact.
	Compact bool

	// Deadline is how long one Send may take.
	Deadline time.Duration

	// Check returns an error if the channel's settings are not usable. It
	// begins with the field.
	Check func(c policy.Channel) error

	// Files returns an error if a file that the channel names is not one that Send can
	// use. It begins with the field; nil if there are none.
	Files func(c policy.Channel, t *target.Target) error

	// Place returns what tells channels of one name apart, and may be a secret; nil
	// if there is nothing of the kind. See place.go.
	Place func(c policy.Channel) string

	// New returns the channel. It touches nothing.
	New func(c policy.Channel, t *target.Target) Channel
}

// Register adds a driver. It panics if the type is taken or a field is
// missing, since both are mistakes in the program.
func Register(d Driver) {
	if d.Type == "" || d.Deadline <= 0 || d.Check == nil || d.New == nil {
		panic(fmt.Sprintf("deliver: incomplete driver %q", d.Type))
	}
	if _, ok := drivers[d.Type]; ok {
		panic(fmt.Sprintf("deliver: driver %q registered twice", d.Type))
	}
	drivers[d.Type] = d
}

// Types returns the registered types, sorted.
func Types() []string {
	var types []string
	for t := range drivers {
		types = append(types, t)
	}
	slices.Sort(types)
	return types
}

var drivers = map[string]Driver{}

// route is a channel with what the pass needs to know of its driver and its
// settings.
type route struct {
	Channel
	name     string // in receipts, logs and the status; empty: the channel's own
	former   string // what older receipts call it
	deadline time.Duration
	network  bool
	compact  bool
	user     string // whose envelopes it takes; empty: everybody's
	one      bool   // it takes one envelope in its life

	config policy.Channel
}

func (r route) Name() string {
	if r.name == "" {
		return r.Channel.Name()
	}
	return r.name
}

// look is how the channel looks at what it has found, nil if it cannot.
func (r route) look() func(context.Context, Item) error {
	if l, ok := r.Channel.(Looker); ok {
		return l.Look
	}
	return nil
}

// routes returns the channels of a policy in its order, each once and with a
// name of its own, and an error for every one that cannot be used.
func routes(channels []policy.Channel, t *target.Target) ([]route, error) {
	var rs []route
	var errs []error
	seen := map[string]int{}
	key := placeKey(t)
	for i, c := range channels {
		d, ok := drivers[c.Type]
		if !ok {
			errs = append(errs, fmt.Errorf("channels[%d].type: %.64q: %w", i, c.Type, ErrType))
			continue
		}
		if err := d.Check(c); err != nil {
			errs = append(errs, fmt.Errorf("channels[%d].%w", i, err))
			continue
		}
		if slices.ContainsFunc(channels[:i], c.Equal) {
			continue
		}
		ch := d.New(c, t)
		r := route{ch, ch.Name(), ch.Name(), d.Deadline, d.Network, d.Compact, c.User, c.TakesOne(), c}
		if seen[r.former]++; seen[r.former] > 1 {
			r.former = fmt.Sprintf("%s #%d", r.former, seen[r.former])
		}
		switch {
		case d.Place == nil:
		case key == nil:
			r.name = r.former
		default:
			r.name += " #" + tag(key, d.Place(c))
			if slices.ContainsFunc(rs, func(o route) bool { return o.name == r.name }) {
				r.name = ch.Name() + " #" + tag(key, c.URL)
			}
		}
		rs = append(rs, r)
	}
	return rs, errors.Join(errs...)
}

// CheckFiles looks at the files that the policy's channels name: those an attempt
// would fail of. The errors begin with the field.
func CheckFiles(e *policy.Effective, t *target.Target) error {
	var errs []error
	for i, c := range e.Channels {
		if d := drivers[c.Type]; d.Files != nil {
			if err := d.Files(c, t); err != nil {
				errs = append(errs, fmt.Errorf("channels[%d].%w", i, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Ways are the channels of an envelope's user.
type Ways struct {
	Open    []string // names of those that can carry the envelope
	Spent   []string // of single-use ones that have had another envelope
	Refused []error  // of those that refuse it for its recipients: name and reason
}

// Ways sorts the channels of the policy by whether the envelope can leave by them. One
// that is too small for it is in no list.
func (o *Outbox) Ways(e *policy.Effective, item Item) (w Ways, err error) {
	rs, _ := routes(e.Channels, o.t)
	p, err := o.taken(rs)
	for _, r := range forEnvelope(rs, nil, "", item.User) {
		var refused error
		if c, ok := r.Channel.(Chooser); ok {
			refused = c.Refuses(item.Sealed)
		}
		switch first := p[place(r.Name())]; {
		case r.one && first != "" && first != item.ID:
			w.Spent = append(w.Spent, r.Name())
		case refused != nil:
			w.Refused = append(w.Refused, fmt.Errorf("%s: %w", r.Name(), refused))
		case item.Compact != nil || !r.compact:
			w.Open = append(w.Open, r.Name())
		}
	}
	return w, err
}

// Retire lets go of a ready envelope that nobody needs any more: what the channels
// have left of it on the machine goes, then the envelope. The receipt stays. The
// caller holds the enrollment's lock.
func (o *Outbox) Retire(e *policy.Effective, m Meta) error {
	rs, _ := routes(e.Channels, o.t) // one that cannot be used has left nothing
	return o.retire(rs, m)
}

func (o *Outbox) retire(rs []route, m Meta) error {
	if err := takeBack(rs, m); err != nil {
		return err
	}
	return o.Withdraw(m.ID)
}

// takeBack removes what channels have left of an envelope on the machine.
func takeBack(rs []route, m Meta) error {
	for _, r := range rs {
		if w, ok := r.Channel.(Withdrawer); ok {
			if err := w.Withdraw(m); err != nil {
				return fmt.Errorf("%s: %w", r.Name(), err)
			}
		}
	}
	return nil
}

// places are those that take one envelope in their life, by what [place] calls them,
// and the ID of that envelope.
type places map[string]string

// taken says which envelope each channel may have got that takes one only.
func (o *Outbox) taken(rs []route) (places, error) {
	if !slices.ContainsFunc(rs, func(r route) bool { return r.one }) {
		return nil, nil
	}
	all, err := o.allReceipts()
	p := places{}
	for _, r := range all {
		r.rename(rs)
		for name, a := range r.Channels {
			if a.State == Delivered || a.State == Unconfirmed || a.Unclear {
				p[place(name)] = r.ID
			}
		}
	}
	return p, err
}

// forEnvelope returns the routes that an envelope can go by.
func forEnvelope(rs []route, p places, id, user string) []route {
	var own []route
	for _, r := range rs {
		if r.user != "" && r.user != user {
			continue
		}
		if first := p[place(r.Name())]; r.one && first != "" && first != id {
			continue
		}
		own = append(own, r)
	}
	return own
}
