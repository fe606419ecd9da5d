// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// Anybody who knows a recipient can seal a card to it, with an ID, a user and an
// instance-id that are on every console. So a card is believed little about other
// cards: it may be shown beside them, but not in their place.

// errContradiction means that two cards with the same ID are not the same.
var errContradiction = errors.New("differ")

// replaces tells whether a card takes the place of another: that of the same
// user on the same instance, of a later generation. All cards of one user there
// have the same token, or none.
func replaces(later, c card.Card) bool {
	return later.Supersedes == c.ID && later.User == c.User &&
		later.InstanceID == c.InstanceID && later.Token == c.Token && later.Generation > c.Generation
}

// sameCard tells whether two cards say the same. The compact form says less than
// the full one, so what both say is compared.
func sameCard(a, b card.Card) bool {
	if a.ID != b.ID {
		return false
	}
	form := func(c card.Card) ([]byte, error) { return json.Marshal(c) }
	if a.Type != b.Type {
		form = card.Card.ShortCompact
	}
	x, errA := form(a)
	y, errB := form(b)
	return errA == nil && errB == nil && bytes.Equal(x, y)
}

// cardKey tells any two cards apart that are not the same.
func cardKey(c card.Card) string {
	text, err := json.Marshal(c)
	if err != nil {
		return c.ID
	}
	return string(text)
}

// contradiction returns an error where two cards have the same ID.
func contradiction(cards []card.Card) error {
	seen := make(map[string]bool)
	for _, c := range cards {
		if seen[c.ID] {
			return withHints(fmt.Errorf("two cards with the ID %q %w: one of them is forged", c.ID, errContradiction),
				"use neither, nor the host keys on them, before you know which one the server made: compare the ID and the envelopes with what it sends by another channel, or make a new card there by totp-agent reset")
		}
		seen[c.ID] = true
	}
	return nil
}
