// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// sayOrigin reports in one line for each card what is known about its origin, and what
// is not. With a ticket, accept reports it.
func (o openOptions) sayOrigin(cards []card.Card) {
	if o.hostKey == "" && (o.json || o.ticket != "") {
		return // a program reads the card, and knows no more than it did
	}
	for _, c := range cards {
		printf("origin: %s", o.unproven(c))
	}
}

// unproven returns what is known about a card without a ticket.
func (o openOptions) unproven(c card.Card) string {
	const remedy = "any person who knows your recipient can seal one; use --ticket to verify it"
	if o.hostKey == "" {
		return fmt.Sprintf("not proven: who sealed the card of %s, and whether its host keys are the server's; %s", account(c), remedy)
	}
	text := fmt.Sprintf("the server has shown the host key %s, which is on the card of %s", o.hostKey, account(c))
	if o.ticket == "" {
		text += "; not proven: who sealed the card; " + remedy
	}
	return text
}

// proven returns in one line what a ticket proves about a card's origin, and what not.
func proven(c card.Card, v seal.Verdict) string {
	const not = "not proven: another reader of that user-data, such as the provider or a program on the server, could have made it"
	who := "the card of " + account(c)
	switch v.Standing {
	case seal.Again:
		return who + " is the one that was accepted before; " + not
	case seal.Later:
		text := fmt.Sprintf("%s is generation %d and contains the token of this ticket's user-data; the codes of all earlier cards no longer work", who, c.Generation)
		if v.Gap {
			text += "; this ticket has not seen the card that it replaces"
		}
		if v.NewKeys {
			text += "; it names OTHER HOST KEYS than before"
		}
		return text + "; " + not
	}
	return who + " is the first and contains the token of this ticket's user-data, so its host keys are from that server; " + not
}
