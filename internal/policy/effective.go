// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"errors"
	"maps"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// An Effective is what holds on an instance: the image's policy with the layers
// above it that were not refused, and the defaults where nobody said anything.
type Effective struct {
	Policy // without Notices

	// Layers are those that hold, the image's first.
	Layers []Layer

	// Notices are the parts of newer layers that were left out.
	Notices []Notice

	origin map[string]Layer // by user: where its recipients are from
	own    map[string][]seal.Recipient
	escrow []seal.Recipient
}

// A Refusal is a layer that does not hold, as a whole, and why. Err is [Errors].
type Refusal struct {
	Layer Layer
	File  string
	Err   error
}

// A Notice is a part of a layer that was left out while the rest of it holds.
type Notice struct {
	Layer Layer
	File  string
	Err   *Error
}

// Load parses and merges the documents of the three layers. A layer that is nil
// is not there. Errors of the image's are fatal; any other layer with an error
// is refused, and the layers below it hold.
func Load(image, vendor, instance []byte) (*Effective, []Refusal, error) {
	if image == nil {
		return nil, nil, Errors{{File: Image.File(), Rule: ErrMissing, Fix: "build the image again"}}
	}
	base, err := Parse(Image, Image.File(), image)
	if err != nil {
		return nil, nil, err
	}
	var refused []Refusal
	read := func(layer Layer, data []byte) *Policy {
		if data == nil {
			return nil
		}
		p, err := Parse(layer, layer.File(), data)
		if err != nil {
			refused = append(refused, Refusal{layer, layer.File(), err})
			return nil
		}
		return p
	}
	e, merged := Merge(base, read(Vendor, vendor), read(Instance, instance))
	for _, r := range merged {
		var errs Errors
		text := map[Layer][]byte{Vendor: vendor, Instance: instance}[r.Layer]
		if root, e := document(text); e == nil && errors.As(r.Err, &errs) {
			locate(root, errs)
			errs.sort()
		}
		refused = append(refused, r)
	}
	slices.SortStableFunc(refused, func(a, b Refusal) int { return a.Layer.rank() - b.Layer.rank() })
	return e, refused, nil
}

func (l Layer) rank() int { return slices.Index([]Layer{Image, Vendor, Instance}, l) }

// Merge lays the vendor's and the instance's policy over the image's, by the
// table of layers. Each is one that [Policy.Validate] found nothing in; vendor
// and instance may be nil, the image's may not. A layer that asks for what it may not have, or that
// would mix classes of recipients, is refused.
func Merge(image, vendor, instance *Policy) (*Effective, []Refusal) {
	e := &Effective{Policy: *image.WithDefaults(), Layers: []Layer{Image}, origin: map[string]Layer{}}
	for _, u := range e.Users {
		if len(u.Recipients) > 0 {
			e.origin[u.Name] = Image
		}
	}
	e.resolve()

	var refused []Refusal
	for _, l := range []struct {
		layer Layer
		p     *Policy
	}{{Vendor, vendor}, {Instance, instance}} {
		if l.p == nil {
			continue
		}
		above, errs := e.over(l.layer, l.p)
		if len(errs) > 0 {
			for _, err := range errs {
				err.File = l.p.File
			}
			refused = append(refused, Refusal{l.layer, l.p.File, errs})
			continue
		}
		e = above
	}
	return e, refused
}

// over returns e with the layer p over it.
func (e *Effective) over(layer Layer, p *Policy) (*Effective, Errors) {
	above := &Effective{Policy: *e.Policy.clone(), Layers: append(slices.Clone(e.Layers), layer), Notices: slices.Clone(e.Notices), origin: maps.Clone(e.origin)}
	m := merger{layer: layer, to: above}
	m.policy(p)
	if len(m.errs) > 0 {
		return nil, m.errs
	}
	above.notices(layer, p)
	above.resolve()
	if !above.oneClass() {
		m.fail(firstRecipient(p), "", seal.ErrMixedClasses, "the layers below name recipients of the other class; "+mixedFix)
	}
	if path, yes := above.classicBanner(p); yes && len(m.errs) == 0 {
		m.fail(path, "", ErrClassicBanner, bannerFix)
	}
	return above, m.errs
}

// firstRecipient is the path of the first recipient that p names. Those of one
// layer are of one class, so it stands for all.
func firstRecipient(p *Policy) string {
	for i, u := range p.Users {
		if len(u.Recipients) > 0 {
			return at(join(at("users", i), "recipients"), 0)
		}
	}
	return at("escrow_recipients", 0)
}

func (e *Effective) notices(layer Layer, p *Policy) {
	for _, n := range p.Notices {
		e.Notices = append(e.Notices, Notice{layer, p.File, n})
	}
}

// resolve parses the recipients. They were validated, so none is bad.
func (e *Effective) resolve() {
	e.own = make(map[string][]seal.Recipient, len(e.Users))
	for _, u := range e.Users {
		e.own[u.Name] = parseRecipients(u.Recipients)
	}
	e.escrow = parseRecipients(e.EscrowRecipients)
}

func parseRecipients(list []string) []seal.Recipient {
	var rs []seal.Recipient
	for _, s := range list {
		if r, err := parseRecipient(s); err == nil {
			rs = append(rs, r)
		}
	}
	return rs
}

// oneClass reports whether all recipients are of one class. Those taken from
// authorized_keys will be classic.
func (e *Effective) oneClass() bool {
	all := slices.Clone(e.escrow)
	for _, u := range e.Users {
		all = append(all, e.own[u.Name]...)
	}
	if len(all) == 0 {
		return true
	}
	return seal.CheckClasses(all) == nil && !(e.AllowsAuthorizedKeys() && all[0].Class() == seal.PostQuantum)
}

// RecipientsOf returns the recipients that the policy names for a user, and
// those who read every card. A user without own ones is not enrolled for the
// sake of the latter.
func (e *Effective) RecipientsOf(user string) (own, escrow []seal.Recipient) {
	return slices.Clone(e.own[user]), slices.Clone(e.escrow)
}

// OriginOf returns the layer that the user's recipients are from, or "" if the
// policy names none.
func (e *Effective) OriginOf(user string) Layer { return e.origin[user] }

// AllowsAuthorizedKeys reports whether a card may be sealed to the user's own
// SSH login keys where no recipient is named.
func (e *Effective) AllowsAuthorizedKeys() bool {
	return slices.Contains(e.RecipientsFrom, FromAuthorizedKeys)
}

// Listed reports whether the policy names the user.
func (e *Effective) Listed(user string) bool {
	return slices.ContainsFunc(e.Users, func(u User) bool { return u.Name == user })
}
