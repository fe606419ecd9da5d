// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// CompactRoom is how many characters of base64 a channel with little room takes:
// OpenStack's metadata service, MAX_SIZE in nova/api/metadata/password.py.
const CompactRoom = 1020

// WantsCompact reports whether a channel has little room, so that a user's card
// goes there in its compact form.
func (p *Policy) WantsCompact(user string) bool { return tight(p.Channels, user) >= 0 }

// tight returns the index of the channel with little room that takes a user's
// envelope, or -1.
func tight(channels []Channel, user string) int {
	return slices.IndexFunc(channels, func(c Channel) bool {
		return c.Type == ChannelOpenStack && (c.User == "" || c.User == user)
	})
}

// Misfit returns an error, with [ErrNoRoom], if a user's card sealed to rs cannot
// be made small enough for a channel of the policy that has little room. The other
// channels carry it all the same.
func (e *Effective) Misfit(user string, rs []seal.Recipient) *Error {
	i := tight(e.Channels, user)
	if i < 0 {
		return nil
	}
	return noRoom(at("channels", i), e.Channels[i].Type, rs, sealedSize(card.CompactSize(user, e.BackupCodes, e.Token != ""), rs))
}

// room refuses recipients, in the policy of an image, whose cards cannot leave by
// a channel that it names. What another layer may bring is not known here.
func (v *validator) room(p *Policy) {
	if v.layer != Image {
		return
	}
	codes := p.BackupCodes
	if codes == 0 {
		codes = DefaultBackupCodes
	}
	escrow := parseRecipients(p.EscrowRecipients)
	before := len(v.errs)
	for j, u := range p.Users {
		i := tight(p.Channels, u.Name)
		rs := append(parseRecipients(u.Recipients), escrow...)
		if i < 0 || len(u.Recipients) == 0 || len(rs) < len(u.Recipients) {
			continue
		}
		if err := noRoom(join(at("users", j), "recipients"), p.Channels[i].Type, rs, sealedSize(card.CompactSize(u.Name, codes, false), rs)); err != nil {
			v.errs = append(v.errs, err)
		}
	}
	i := slices.IndexFunc(p.Channels, func(c Channel) bool { return c.Type == ChannelOpenStack })
	if i < 0 || len(escrow) == 0 || len(v.errs) > before {
		return
	}
	// Beside them is at least one recipient of the card's own.
	name := p.Channels[i].User
	if name == "" {
		name = "a"
	}
	if err := noRoom("escrow_recipients", p.Channels[i].Type, escrow, sealedSize(card.CompactSize(name, codes, false)+stanzaX25519, escrow)); err != nil {
		v.errs = append(v.errs, err)
	}
}

// stanzaX25519 is how many bytes the smallest recipient takes in the header of an
// age file, https://c2sp.org/age.
const stanzaX25519 = 98

// sealedSize is how many characters of base64 a text of n bytes takes when it is
// sealed; zero if it cannot be.
func sealedSize(n int, rs []seal.Recipient) int {
	b, err := seal.Seal(make([]byte, n), rs)
	if err != nil {
		return 0
	}
	return base64.StdEncoding.EncodedLen(len(b))
}

func noRoom(path, channel string, rs []seal.Recipient, size int) *Error {
	if size <= CompactRoom {
		return nil
	}
	var names []string
	for _, r := range rs[:min(len(rs), 3)] {
		names = append(names, r.Short())
	}
	if more := len(rs) - len(names); more > 0 {
		names = append(names, itoa(more)+" more")
	}
	return &Error{Path: path, Value: strings.Join(names, ", "), Rule: ErrNoRoom, Fix: "channel " + channel + " takes " + itoa(CompactRoom) + " characters, and it would have " + itoa(size) +
		": seal it to one age1… (X25519) recipient, or name the channel for another user, or leave it out"}
}
