// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// errRefused means that a card is not what its ticket expects.
var errRefused = errors.New("the card is refused")

// A ticketFile is a ticket on disk.
type ticketFile struct {
	name   string
	ticket seal.Ticket
	unlock func()
}

// openTicket reads a ticket, and keeps others from it until close: of two
// different cards that are opened at the same time, one is the second.
func openTicket(name string) (*ticketFile, error) {
	real, err := filepath.EvalSymlinks(name)
	if err != nil {
		return nil, fileError(name, err)
	}
	waiting := time.AfterFunc(time.Second, func() { printf("waiting: another program has the ticket %q", name) })
	unlock, err := lockTicket(real)
	waiting.Stop()
	if err != nil {
		return nil, fmt.Errorf("ticket %q: cannot be locked: %w", name, reason(err))
	}
	data, err := readInput(real, maxIdentity)
	if err != nil {
		unlock()
		return nil, err
	}
	t, err := seal.ParseTicket(data)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("ticket %q: %w", name, err)
	}
	return &ticketFile{real, t, unlock}, nil
}

func (f *ticketFile) close() { f.unlock() }

// store replaces the file, for good, before the call returns. Nothing new is
// nothing to store: the file may be one that can only be read.
func (f *ticketFile) store(t seal.Ticket) error {
	data, err := t.Marshal()
	if err != nil {
		return err
	}
	if old, err := f.ticket.Marshal(); err == nil && bytes.Equal(old, data) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(f.name), ".ticket-*") // mode 0600
	if err != nil {
		return fileError(f.name, err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(data)
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return fileError(f.name, err)
	}
	if err := os.Rename(tmp.Name(), f.name); err != nil {
		return fileError(f.name, err)
	}
	syncDir(filepath.Dir(f.name))
	f.ticket = t
	return nil
}

// accept returns the cards that the ticket accepts, and says of each what that
// proves. A card that is new to the ticket is remembered in it first.
func (o openOptions) accept(cards []card.Card, stanzas map[string]int) (accepted []card.Card, refused error) {
	f, err := openTicket(o.ticket)
	if err != nil {
		return nil, err
	}
	defer f.close()
	// In the order in which they were made, so that each finds the one it replaces.
	slices.SortStableFunc(cards, func(a, b card.Card) int { return cmp.Compare(a.Generation, b.Generation) })
	t := f.ticket
	var words []string
	for _, c := range cards {
		v, next, err := t.Accept(candidate(c, stanzas[cardKey(c)]), time.Now())
		if err != nil {
			refused = errors.Join(refused, fmt.Errorf("%w: %q of %s %w", errRefused, c.ID, account(c), err))
			continue
		}
		t = next
		accepted = append(accepted, c)
		words = append(words, proven(c, v))
	}
	if len(accepted) > 0 {
		if err := f.store(t); err != nil {
			return nil, fmt.Errorf("the card cannot be remembered in the ticket, so it is not shown: %w", err)
		}
	}
	for _, w := range words {
		printf("ticket: %s", w)
	}
	if refused != nil {
		refused = withHints(refused, refusalHint(refused))
	}
	return accepted, refused
}

func candidate(c card.Card, stanzas int) seal.Candidate {
	s := seal.Candidate{
		User: c.User, Token: c.Token, ID: c.ID, Generation: c.Generation, Supersedes: c.Supersedes, Secret: c.Secret,
		InstanceID: c.InstanceID, Readers: c.Recipients, Stanzas: stanzas,
	}
	for _, k := range c.HostKeys {
		if words := strings.Fields(k); len(words) > 1 {
			s.HostKeys = append(s.HostKeys, words[1])
		}
	}
	return s
}

func refusalHint(err error) string {
	switch {
	case errors.Is(err, seal.ErrSecondCard):
		return "two different cards of one generation: one of them is forged, or two machines got the same user-data. Ask the provider before you log in"
	case errors.Is(err, seal.ErrForged):
		return "it is another instance's, or somebody else's who knows your recipient: do not use it, nor the host keys on it"
	case errors.Is(err, seal.ErrReaders):
		return "if the image has escrow recipients, make the ticket with --image-report; otherwise ask who the others are"
	case errors.Is(err, seal.ErrTicketExpired):
		return "ask for a new card of the server: totp-agent reset, on its console"
	}
	return "do not use it, nor the host keys on it"
}

// countStanzas returns how many recipients an age file is sealed to.
func countStanzas(sealed []byte) int {
	file, err := seal.Dearmor(sealed)
	if err != nil {
		return 0
	}
	n, _ := seal.CountRecipients(file)
	return n
}
