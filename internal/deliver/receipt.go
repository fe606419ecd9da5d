// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
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
)

// ErrReceipt means that a receipt's file is damaged.
var ErrReceipt = errors.New("damaged receipt")

// Receipt is the record of what the channels did with one envelope.
type Receipt struct {
	ID       string             `json:"id"`
	User     string             `json:"user"`
	Channels map[string]Attempt `json:"channels"` // by the channel's name
}

// Attempt is the last attempt to give an envelope to a channel.
type Attempt struct {
	State string    `json:"state"`          // Delivered, Offered or Failed
	Tries int       `json:"tries"`          // attempts so far
	Last  time.Time `json:"last"`           // when the last one began
	Next  time.Time `json:"next,omitzero"`  // after Failed: no new attempt before
	Boot  string    `json:"boot,omitempty"` // the kernel's boot ID at the last attempt: another boot does not wait for Next
	Error string    `json:"error,omitempty"`
}

// Has tells whether the channel of that name has taken the envelope.
func (r Receipt) Has(channel string) bool {
	a := r.Channels[channel]
	return a.State == Delivered || a.State == Offered
}

// State returns [Delivered], [Offered] or [Pending]: where an envelope with
// this receipt stands under a policy's channels and its require.
func (r Receipt) State(e *policy.Effective) string {
	rs, _ := routes(e.Channels, nil)
	return r.state(rs, e.Require)
}

// HasReceipt tells whether at least one channel has taken the envelope. A
// record of failed attempts alone is no receipt.
func (o *Outbox) HasReceipt(id string) (bool, error) {
	r, err := o.Receipts(id)
	if errors.Is(err, ErrReceipt) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	for name := range r.Channels {
		if r.Has(name) {
			return true, nil
		}
	}
	return false, nil
}

// Receipts returns the record of an envelope. Where nothing was tried yet it
// is empty. The error is [ErrReceipt] if its file is damaged.
func (o *Outbox) Receipts(id string) (Receipt, error) {
	if err := frame.CheckID(id); err != nil {
		return Receipt{}, err
	}
	data, err := o.t.ReadFile(receiptFile(id))
	if errors.Is(err, fs.ErrNotExist) {
		return Receipt{ID: id}, nil
	}
	if err != nil {
		return Receipt{}, err
	}
	var r Receipt
	if err := json.Unmarshal(data, &r); err != nil {
		return Receipt{}, fmt.Errorf("%s: %w: %w", receiptFile(id), ErrReceipt, err)
	}
	if r.ID != id || frame.CheckUser(r.User) != nil {
		return Receipt{}, fmt.Errorf("%s: %w", receiptFile(id), ErrReceipt)
	}
	return r, nil
}

func (o *Outbox) saveReceipt(r Receipt) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	for _, dir := range []string{target.StateDir, target.Receipts} {
		if err := o.t.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	return o.t.WriteFile(receiptFile(r.ID), append(data, '\n'), 0o600)
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
	has, all := 0, 0
	for _, c := range rs {
		if c.Acknowledged() != acknowledged {
			continue
		}
		all++
		if r.Has(c.Name()) {
			has++
		}
	}
	if has == 0 || require == policy.RequireAll && has < all {
		return Pending
	}
	if acknowledged {
		return Delivered
	}
	return Offered
}
