// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// sayOrigin says in one line of each card what is known of its origin, and what is
// not. Where there is a ticket, accept has said it.
func (o openOptions) sayOrigin(cards []card.Card) {
	if o.hostKey == "" && (o.json || o.ticket != "") {
		return // a program reads the card, and knows no more than it did
	}
	for _, c := range cards {
		printf("origin: %s", o.unproven(c))
	}
}

// unproven is what can be said of a card without a ticket.
func (o openOptions) unproven(c card.Card) string {
	const anybody = "anybody who knows your recipient can seal one; --ticket proves it"
	if o.hostKey == "" {
		return fmt.Sprintf("not proven is who has sealed the card of %s, nor that the host keys on it are the server's: %s", account(c), anybody)
	}
	text := fmt.Sprintf("the server has shown the host key %s, which is on the card of %s", o.hostKey, account(c))
	if o.ticket == "" {
		text += "; not proven is who has sealed the card: " + anybody
	}
	return text
}

// proven says in one line what a ticket proves of a card's origin, and what not.
func proven(c card.Card, v seal.Verdict) string {
	const not = "not proven is that nobody else has read that user-data, as the provider and programs on the server can"
	who := "the card of " + account(c)
	switch v.Standing {
	case seal.Again:
		return who + " is the one that was accepted before; " + not
	case seal.Later:
		text := fmt.Sprintf("%s is generation %d: it knows the token of this ticket's user-data, and the codes of all cards before it are dead", who, c.Generation)
		if v.Gap {
			text += "; this ticket has not seen the card that it replaces"
		}
		if v.NewKeys {
			text += "; it names OTHER HOST KEYS than before"
		}
		return text + "; " + not
	}
	return who + " is the first, and knows the token of this ticket's user-data, so that its host keys are from there; " + not
}
