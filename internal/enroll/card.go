// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"encoding/base64"
	"fmt"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// cardFacts are what every card of this machine says of it.
type cardFacts struct {
	hostname string
	hostKeys []string
}

// readFacts reads them once a run.
func (r *run) readFacts() error {
	if r.facts.hostname != "" {
		return nil
	}
	name, err := r.t.Hostname()
	if err != nil {
		return err
	}
	keys, err := r.t.HostKeys()
	if err != nil {
		return err
	}
	r.facts.hostname = card.CleanHostname(name)
	for _, k := range keys {
		entry, err := card.HostKey(k)
		if err != nil {
			// One odd file must not keep everybody out.
			fmt.Fprintf(r.Log, "enroll: a host key is left out of the cards: %v\n", err)
			continue
		}
		r.facts.hostKeys = append(r.facts.hostKeys, entry)
	}
	return nil
}

func (r *run) card(m deliver.Meta, p person, s otp.Enrollment) card.Card {
	c := card.Card{
		V: 1, Type: "totp-enrollment", ID: m.ID, Generation: m.Generation, Supersedes: m.Supersedes,
		InstanceID: card.CleanInstanceID(m.InstanceID), Hostname: m.Hostname, User: m.User, Issuer: r.policy.Issuer,
		Created: m.Created, OTPAuth: s.URI, Secret: s.Secret, Algorithm: "SHA1", Digits: 6, Period: 30,
		BackupCodes: s.BackupCodes, HostKeys: r.facts.hostKeys, Agent: r.Agent,
	}
	for _, rec := range p.readers {
		c.Recipients = append(c.Recipients, rec.Hash())
	}
	for _, rec := range p.escrow {
		c.Escrow = append(c.Escrow, rec.Short())
	}
	if token, err := base64.RawURLEncoding.DecodeString(r.policy.Token); err == nil && len(token) > 0 {
		c.Token = card.TokenMAC(token, m.User)
	}
	return c
}
