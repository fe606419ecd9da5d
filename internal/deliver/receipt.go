// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// States of an [Attempt], and of an envelope in a [Summary].
const (
	Delivered = "delivered" // somebody has confirmed having it
	Offered   = "offered"   // it lies there to be picked up
	Failed    = "failed"    // the last attempt failed, or was interrupted
	Pending   = "pending"   // of an envelope: not delivered as the policy requires

	// Unconfirmed is final: the other end says that something is there, and an
	// attempt of ours before that may have put it there. Nobody can tell but the
	// owner, who opens it; or a [Looker], which goes on looking and sends no more.
	// Of an envelope: no channel is left that could confirm it.
	Unconfirmed = "unconfirmed"

	// Tampered means that something was in the envelope's place before our first
	// attempt that may have reached it. Whatever lies there is not ours.
	Tampered = "tampered"
)

// ErrReceipt means that a receipt's file is damaged.
var ErrReceipt = errors.New("damaged receipt")

// Receipt is the record of what the channels did with one envelope.
type Receipt struct {
	ID       string             `json:"id"`
	User     string             `json:"user"`
	Channels map[string]Attempt `json:"channels"` // by the channel's name

	// Days is on how many days, by the machine's calendar, a pass has found the
	// envelope in the outbox, and Day is the last of them. A count does not mind a
	// clock that is put right, as the difference of two times would.
	Days int    `json:"days,omitempty"`
	Day  string `json:"day,omitempty"`

	used bool // its user has logged in with a code
}

// Attempt is the last attempt to give an envelope to a channel.
type Attempt struct {
	State string    `json:"state"`          // Delivered, Offered, Failed, Unconfirmed or Tampered
	Tries int       `json:"tries"`          // attempts so far
	Last  time.Time `json:"last"`           // when the last one began
	Next  time.Time `json:"next,omitzero"`  // after Failed: no new attempt before
	Boot  string    `json:"boot,omitempty"` // the kernel's boot ID at the last attempt: another boot does not wait for Next
	Error string    `json:"error,omitempty"`

	// Unclear says that an attempt may have reached the other end, and nobody has
	// confirmed it. It is set before the attempt begins.
	Unclear bool `json:"unclear,omitempty"`
}

// Has tells whether the channel of that name has taken the envelope.
func (r Receipt) Has(channel string) bool {
	a := r.Channels[channel]
	return a.State == Delivered || a.State == Offered
}

// Standing returns [Delivered], [Offered], [Unconfirmed] or [Pending]: where an
// envelope with this receipt stands under a policy's channels and its require.
func (o *Outbox) Standing(e *policy.Effective, r Receipt) (string, error) {
	rs, _ := routes(e.Channels, o.t)
	r.rename(rs)
	p, err := o.taken(rs)
	return r.state(forEnvelope(rs, p, r.ID, r.User), e.Require), err
}

// HasReceipt tells whether at least one channel has taken the envelope, or may
// have and can say no more of it. A record of failed attempts alone is no
// receipt.
func (o *Outbox) HasReceipt(id string) (bool, error) {
	r, err := o.Receipts(id)
	if errors.Is(err, ErrReceipt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return r.handedOut(), nil
}

// over tells whether the channel is to show the envelope no more.
func (r Receipt) over(c route) bool {
	_, display := c.Channel.(Display)
	return display && r.used
}

// handedOut tells whether a channel has taken the envelope, or may have.
func (r Receipt) handedOut() bool {
	for name, a := range r.Channels {
		if r.Has(name) || a.State == Unconfirmed {
			return true
		}
	}
	return false
}

// Receipts returns the record of an envelope. Where nothing was tried yet it
// is empty. The error is [ErrReceipt] if its file is damaged.
func (o *Outbox) Receipts(id string) (Receipt, error) {
	if err := frame.CheckID(id); err != nil {
		return Receipt{}, err
	}
	data, err := o.t.ReadFile(receiptFile(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Receipt{ID: id, used: o.used(id)}, nil
	}
	if err != nil {
		return Receipt{}, err
	}
	r := Receipt{used: o.used(id)}
	if err := json.Unmarshal(data, &r); err != nil {
		return Receipt{}, fmt.Errorf("%s: %w: %w", receiptFile(id), ErrReceipt, err)
	}
	if r.ID != id || !r.valid() {
		return Receipt{}, fmt.Errorf("%s: %w", receiptFile(id), ErrReceipt)
	}
	return r, nil
}

// maxCount is the largest number of attempts or days that a receipt can have.
const maxCount = 1 << 30

// valid reports whether the receipt has a user and counts that an agent can have written.
func (r Receipt) valid() bool {
	for _, a := range r.Channels {
		if a.Tries < 0 || a.Tries > maxCount {
			return false
		}
	}
	return frame.CheckUser(r.User) == nil && r.Days >= 0 && r.Days <= maxCount
}

// allReceipts returns those that can be read.
func (o *Outbox) allReceipts() ([]Receipt, error) {
	entries, err := o.t.ReadDir(target.Receipts)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Receipt
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || frame.CheckID(id) != nil {
			continue
		}
		if r, err := o.Receipts(id); err == nil {
			all = append(all, r)
		}
	}
	return all, nil
}

func (o *Outbox) saveReceipt(r Receipt) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := o.makeReceipts(); err != nil {
		return err
	}
	return o.t.WriteFile(receiptFile(r.ID), append(data, '\n'), 0o600)
}

func (o *Outbox) makeReceipts() error {
	return errors.Join(o.t.Mkdir(target.StateDir, 0o700), o.t.Mkdir(target.Receipts, 0o700))
}

func receiptFile(id string) string {
	return path.Join(target.Receipts, id+".json")
}

// state applies require. Offered channels count only where there is no
// acknowledged one.
func (r Receipt) state(rs []route, require string) string {
	acknowledged := false
	for _, c := range rs {
		acknowledged = acknowledged || c.Acknowledged()
	}
	has, unconfirmed, all := 0, 0, 0
	for _, c := range rs {
		if c.Acknowledged() != acknowledged {
			continue
		}
		all++
		if r.Has(c.Name()) || r.over(c) {
			has++
		}
		if r.Channels[c.Name()].State == Unconfirmed {
			unconfirmed++
		}
	}
	switch {
	case has == all && all > 0, has > 0 && require != policy.RequireAll:
	case unconfirmed > 0 && has+unconfirmed == all:
		return Unconfirmed
	default:
		return Pending
	}
	if acknowledged {
		return Delivered
	}
	return Offered
}
