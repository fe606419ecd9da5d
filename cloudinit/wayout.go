// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// kind returns the kind of the channel, see [ChannelKinds].
func (c Channel) kind() string {
	if c.Type == policy.ChannelConsole && c.Device != "" {
		return SerialPort
	}
	return c.Type
}

// Best returns how well the best of the channels brings cards out of the provider's
// machines.
func (p Provider) Best(channels []Channel) Availability {
	best := Unavailable
	for _, c := range channels {
		best = max(best, p.Route(c.kind()).Availability)
	}
	return best
}

// Kinds returns the kinds of channels of which the provider has that availability.
func (p Provider) Kinds(a Availability) []string {
	return slices.DeleteFunc(ChannelKinds(), func(kind string) bool { return p.Route(kind).Availability != a })
}

// CheckImage returns an error, with [ErrNoWayOut] or [ErrUnknownWay], if no channel of
// an image's policy is known to bring a card out of the provider's machines. User-data
// may still name one. Without channels, the default ones are meant.
func (p Provider) CheckImage(channels []Channel) *Error {
	if len(channels) == 0 {
		channels = defaultChannels()
	}
	best := p.Best(channels)
	if best == Available {
		return nil
	}
	return p.noWay("channels", "", channels, best, "bake one of them into the image, or let each server's user-data name it")
}

// defaultChannels are those of a policy that names none.
func defaultChannels() []Channel {
	var out []Channel
	for _, c := range (&policy.Policy{Version: policy.Version}).WithDefaults().Channels {
		out = append(out, Channel(c))
	}
	return out
}

// noWay returns the error for channels of which none brings a card out.
func (p Provider) noWay(path, user string, channels []Channel, best Availability, how string) *Error {
	var kinds []string
	for _, c := range channels {
		if k := c.kind(); !slices.Contains(kinds, k) {
			kinds = append(kinds, k)
		}
	}
	rule := ErrNoWayOut
	if best == Unknown {
		rule = ErrUnknownWay
	}
	return &Error{Path: path, Value: user, Rule: fmt.Errorf("%w at %s: the channels are %s, and cards leave by %s",
		rule, p.Name, strings.Join(kinds, ", "), strings.Join(p.Kinds(Available), ", ")), Fix: how}
}

// wayOut returns an error for each user whose card certainly cannot leave the host,
// and a warning for each for whom that is not known.
func (s Spec) wayOut(h Host) (warnings, errs Errors) {
	p := h.Provider
	if p.Name == "" {
		return nil, nil
	}
	channels := s.Channels
	var e *policy.Effective
	if h.Image != nil {
		var err error
		if e, err = s.effective(h.Image); err != nil {
			return nil, nil // Fits returns it
		}
		channels = nil
		for _, c := range e.Channels {
			channels = append(channels, Channel(c))
		}
	}
	if len(s.Users) == 0 {
		if best := p.Best(channels); len(channels) > 0 && best < Available {
			warnings = append(warnings, p.noWay("channels", "", channels, best, "add one of them to the image, to this document or to the servers' user-data"))
		}
		return warnings, nil
	}
	for i, u := range s.Users {
		path := fmt.Sprintf("users[%d]", i)
		fit := slices.DeleteFunc(slices.Clone(channels), func(c Channel) bool { return !s.carries(e, c, u.Name) })
		best := p.Best(fit)
		switch {
		case best == Available:
		case h.Image == nil && p.Best(defaultChannels()) == Available:
			// Most images have a fitting one.
		case h.Image == nil:
			warnings = append(warnings, &Error{Path: path, Value: u.Name, Rule: fmt.Errorf("%w, and at %s a card leaves only by %s", ErrUnknownImage, p.Name, strings.Join(p.Kinds(Available), " or ")),
				Fix: "give the image's report (--image-report FILE), or add one of these channels to this document; " + s.howBanner(u, nil)})
		case best == Unavailable && !p.OwnVendor:
			errs = append(errs, p.noWay(path, u.Name, channels, best, "add one of these channels to this document or bake it into the image; "+s.howBanner(u, e)))
		default:
			warnings = append(warnings, p.noWay(path, u.Name, channels, best, "add one of these channels to this document or bake it into the image; "+s.howBanner(u, e)))
		}
	}
	return warnings, errs
}

// carries reports whether a channel takes the card of a user at all. e is nil where
// the image is not known.
func (s Spec) carries(e *policy.Effective, c Channel, user string) bool {
	if c.User != "" && c.User != user {
		return false
	}
	if c.Type != policy.ChannelOpenStack {
		return true
	}
	if e == nil {
		var err error
		if e, err = s.effective(nil); err != nil {
			return true
		}
	}
	own, escrow := e.RecipientsOf(user)
	return len(own) == 0 || e.Misfit(user, append(own, escrow...)) == nil
}

// howBanner says what the channel that every host has asks of the recipients.
func (s Spec) howBanner(u User, e *policy.Effective) string {
	const how = "--channel ssh-banner needs post-quantum recipients (totpctl keygen --pq)"
	recipients := slices.Concat(u.Recipients, s.EscrowRecipients)
	if e != nil {
		own, escrow := e.RecipientsOf(u.Name)
		recipients = nil
		for _, r := range append(own, escrow...) {
			recipients = append(recipients, r.String())
		}
	}
	if slices.ContainsFunc(recipients, func(text string) bool {
		r, err := seal.ParseRecipient(text)
		return err == nil && r.Class() == seal.Classic
	}) {
		return how + ", and a recipient of this user is classic"
	}
	return how
}
