// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const bannerFix = "use post-quantum recipients (totpctl keygen --pq makes such keys), or write recipients: any beside type: ssh-banner"

// pqBanner returns the index of the first ssh-banner channel that shows envelopes
// for post-quantum recipients only.
func pqBanner(channels []Channel) (i int, ok bool) {
	i = slices.IndexFunc(channels, func(c Channel) bool {
		return c.Type == ChannelSSHBanner && c.withDefaults().Recipients == BannerPostQuantum
	})
	return i, i >= 0
}

// banner refuses a document whose envelopes would be shown to everybody and can
// be opened by whoever keeps them until there is a quantum computer. All of its
// recipients are of one class.
func (v *validator) banner(p *Policy) {
	i, ok := pqBanner(p.Channels)
	if ok && (v.named && v.first.Class() == seal.Classic || slices.Contains(p.RecipientsFrom, FromAuthorizedKeys)) {
		v.fail(join(at("channels", i), "recipients"), BannerPostQuantum, ErrClassicBanner, bannerFix)
	}
}

// classicBanner is the same of merged layers. path is the field of p, the layer on
// top, that makes it so.
func (e *Effective) classicBanner(p *Policy) (path string, yes bool) {
	if _, ok := pqBanner(e.Channels); !ok || !e.classic() {
		return "", false
	}
	if i, ok := pqBanner(p.Channels); ok {
		return join(at("channels", i), "recipients"), true
	}
	return firstRecipient(p), true
}

// classic reports whether a card may be sealed to a classic recipient.
func (e *Effective) classic() bool {
	isClassic := func(r seal.Recipient) bool { return r.Class() == seal.Classic }
	if e.AllowsAuthorizedKeys() || slices.ContainsFunc(e.escrow, isClassic) {
		return true
	}
	for _, own := range e.own {
		if slices.ContainsFunc(own, isClassic) {
			return true
		}
	}
	return false
}
