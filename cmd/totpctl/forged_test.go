// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

func TestSameCard(t *testing.T) {
	c := newCard(cardSpec{user: "alice", host: "web-1", instance: "i-1", generation: 1})
	compact := func(c card.Card) card.Card {
		text, err := c.Compact()
		if err != nil {
			t.Fatal(err)
		}
		c, err = card.ParseCompact(text)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	other := newCard(cardSpec{user: "alice", host: "web-2", instance: "i-1", generation: 1, id: c.ID})
	otherKeys := c
	otherKeys.HostKeys = newCard(cardSpec{user: "alice", host: "web-1", instance: "i-2", generation: 1}).HostKeys
	for _, tt := range []struct {
		name string
		a, b card.Card
		want bool
	}{
		{"itself", c, c, true},
		{"its compact form", compact(c), c, true},
		{"two compact forms", compact(c), compact(c), true},
		{"another of the ID", c, other, false},
		{"another's compact form", c, compact(other), false},
		{"other host keys", c, otherKeys, false},
		{"other host keys in the compact form", compact(otherKeys), c, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := sameCard(tt.a, tt.b); got != tt.want || sameCard(tt.b, tt.a) != got {
				t.Errorf("same is %v, want %v", got, tt.want)
			}
			if err := contradiction([]card.Card{tt.a, tt.b}); !errors.Is(err, errContradiction) {
				t.Errorf("two cards of one ID: %v", err)
			}
		})
	}
}

func TestReplaces(t *testing.T) {
	c := newCard(cardSpec{user: "alice", host: "web-1", instance: "i-1", generation: 2})
	c.Token = "token"
	for _, tt := range []struct {
		name   string
		change func(*card.Card)
		want   bool
	}{
		{"the next of the same", func(c *card.Card) {}, true},
		{"two later", func(c *card.Card) { c.Generation++ }, true},
		{"it names another", func(c *card.Card) { c.Supersedes = "other" }, false},
		{"another user", func(c *card.Card) { c.User = "bob" }, false},
		{"another instance", func(c *card.Card) { c.InstanceID = "i-2" }, false},
		{"the same generation", func(c *card.Card) { c.Generation-- }, false},
		{"a token not that of the user-data", func(c *card.Card) { c.Token = "other" }, false},
		{"no token", func(c *card.Card) { c.Token = "" }, false},
	} {
		later := c
		later.ID, later.Supersedes, later.Generation = "later", c.ID, c.Generation+1
		tt.change(&later)
		if got := replaces(later, c); got != tt.want {
			t.Errorf("%s: replaces is %v, want %v", tt.name, got, tt.want)
		}
	}
}
