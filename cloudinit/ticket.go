// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// TicketLifetime is how long the first card of each user is waited for, unless
// somebody says otherwise.
const TicketLifetime = 7 * 24 * time.Hour

// ErrReport means that something is no report of a bake.
var ErrReport = errors.New("is no report of a bake")

// ErrRefused means that the image would refuse the layer.
var ErrRefused = errors.New("the image would refuse this layer as a whole")

// An Image is what a bake's report says of an image.
type Image struct {
	policy  *policy.Policy
	openSSH string // version of sshd, as in 9.2; empty if the report has none
}

// ParseReport reads the report of a bake, see docs/report.md. file names it in
// errors, which are [Errors].
func ParseReport(file string, data []byte) (*Image, error) {
	var r struct {
		Version int
		Policy  string
		OpenSSH string
	}
	if err := json.Unmarshal(data, &r); err != nil || r.Version != 1 || r.Policy == "" {
		return nil, Errors{{File: file, Rule: ErrReport, Fix: `use the file that report = "…" names in the provisioner's block`}}
	}
	p, err := policy.Parse(policy.Image, file+": policy", []byte(r.Policy))
	if err != nil {
		return nil, fromPolicy(err)
	}
	return &Image{p, r.OpenSSH}, nil
}

// effective lays s over the image's policy. The errors are those for which an
// instance would refuse it.
func (s Spec) effective(image *Image) (*policy.Effective, error) {
	base := &policy.Policy{Version: policy.Version}
	if image != nil {
		base = image.policy
	}
	p := s.policy()
	var vendor, instance *policy.Policy
	if s.Vendor {
		vendor = p
	} else {
		instance = p
	}
	e, refused := policy.Merge(base, vendor, instance)
	if len(refused) == 0 {
		return e, nil
	}
	errs := fromPolicy(refused[0].Err)
	for _, err := range errs {
		err.Rule = fmt.Errorf("%w: %w", ErrRefused, err.Rule)
	}
	return nil, errs
}

// Fits reports as [Errors] why instances of an image would refuse the layer of
// s.
func (s Spec) Fits(image *Image) error {
	if _, err := s.Layer(); err != nil {
		return err
	}
	_, err := s.effective(image)
	return err
}

// Unread returns the users whom neither s nor the image, which may be nil, names
// a recipient for. They get no card unless another layer does.
func (s Spec) Unread(image *Image) []string {
	e, err := s.effective(image)
	if err != nil || e.AllowsAuthorizedKeys() {
		return nil
	}
	var names []string
	for _, u := range s.Users {
		if own, _ := e.RecipientsOf(u.Name); len(own) == 0 {
			names = append(names, u.Name)
		}
	}
	return names
}

// Unfit returns an error for each user whose card, sealed to whom s and the image,
// which may be nil, name, has no room in one of their channels. The others carry it
// all the same.
func (s Spec) Unfit(image *Image) []error {
	e, err := s.effective(image)
	if err != nil {
		return nil
	}
	var errs []error
	for _, u := range s.Users {
		own, escrow := e.RecipientsOf(u.Name)
		if len(own) == 0 {
			continue
		}
		if err := e.Misfit(u.Name, append(own, escrow...)); err != nil {
			errs = append(errs, fmt.Errorf("user %q: %w", u.Name, fromPolicy(err)))
		}
	}
	return errs
}

// Ticket returns the ticket for the owner: by what to know the cards of the
// instance that gets the document of s, which has a token. Without the image's
// report, nil, nobody but those whom s names may read a card.
//
// The errors are [Errors].
func (s Spec) Ticket(image *Image, created, expires time.Time) (seal.Ticket, error) {
	if err := s.Fits(image); err != nil {
		return seal.Ticket{}, err
	}
	if !expires.After(created) {
		return seal.Ticket{}, Errors{{Path: "expires", Rule: ErrExpired, Fix: "give the owner some days"}}
	}
	token, err := base64.RawURLEncoding.DecodeString(s.Token)
	if err != nil || len(token) == 0 {
		return seal.Ticket{}, Errors{{Path: "token", Rule: policy.ErrRequired, Fix: "make one of 16 random bytes"}}
	}
	e, err := s.effective(image)
	if err != nil {
		return seal.Ticket{}, err
	}
	t := seal.Ticket{Created: created, Expires: expires}
	var errs Errors
	for i, u := range s.Users {
		tu := seal.TicketUser{Name: u.Name, Token: seal.HashToken(card.TokenMAC(token, u.Name)), Must: []string{}, May: []string{}}
		own, escrow := e.RecipientsOf(u.Name)
		for _, r := range own {
			tu.Must = append(tu.Must, r.Hash())
		}
		if len(own) == 0 && e.AllowsAuthorizedKeys() {
			for _, k := range u.SSHKeys {
				if r, err := seal.ParseRecipient(k); err == nil {
					tu.May = append(tu.May, r.Hash())
				}
			}
		}
		if len(tu.Must)+len(tu.May) == 0 {
			errs = append(errs, &Error{Path: fmt.Sprintf("users[%d].recipients", i), Value: u.Name, Rule: ErrNoRecipients,
				Fix: "name a recipient, or give the image's report, if the image does"})
		}
		for _, r := range escrow {
			switch h := r.Hash(); {
			case slices.Contains(tu.Must, h):
			case named(s.EscrowRecipients, r):
				tu.Must = append(tu.Must, h)
			default:
				tu.May = append(tu.May, h)
			}
		}
		t.Users = append(t.Users, tu)
	}
	if len(errs) > 0 {
		return seal.Ticket{}, errs
	}
	if len(t.Users) == 0 {
		return seal.Ticket{}, Errors{{Path: "users", Rule: ErrNothing, Fix: "a ticket is for the users it names"}}
	}
	return t, nil
}

func named(recipients []string, r seal.Recipient) bool {
	return slices.ContainsFunc(recipients, func(s string) bool {
		t, err := seal.ParseRecipient(s)
		return err == nil && t.Hash() == r.Hash()
	})
}
