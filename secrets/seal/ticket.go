// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Why a card is not the one that a ticket expects, or a file is no ticket.
var (
	ErrNoTicket        = errors.New("is not a valid ticket")
	ErrNotExpected     = errors.New("is not a user of this ticket")
	ErrForged          = errors.New("does not contain the token of the ticket's user-data, so it is not from that instance")
	ErrReaders         = errors.New("is sealed to a reader that the ticket does not allow")
	ErrMissingReaders  = errors.New("is not sealed to all readers that the ticket requires")
	ErrTicketExpired   = errors.New("arrived after the ticket had expired")
	ErrSecondCard      = errors.New("is a different card of a generation that was already accepted")
	ErrOlderGeneration = errors.New("is older than the accepted card")
	ErrOtherHostKey    = errors.New("arrived after the ticket had expired and names other host keys than the accepted card")
)

// A Ticket is what the owner keeps when user-data are made: by what to know the
// cards of the instance that gets them, and which were accepted since.
//
// It holds no secret: of tokens and cards it has hashes of values that cannot be
// guessed.
type Ticket struct {
	V       int          `json:"v"`    // 1
	Type    string       `json:"type"` // "totp-ticket"
	Created time.Time    `json:"created"`
	Expires time.Time    `json:"expires"` // for the first card of each user
	Users   []TicketUser `json:"users"`
}

const ticketType = "totp-ticket"

// A TicketUser is a user who gets a card.
type TicketUser struct {
	Name  string   `json:"name"`
	Token string   `json:"token"` // [HashToken] of the token that the card carries
	Must  []string `json:"must"`  // [Recipient.Hash] of those who must be able to read it
	May   []string `json:"may"`   // and of those who may

	// Accepted are the cards that were accepted, in this order.
	Accepted []Accepted `json:"accepted,omitempty"`
}

// Accepted is a card that was accepted.
type Accepted struct {
	Time       time.Time `json:"time"`
	ID         string    `json:"id"`
	Generation int       `json:"generation"`
	Card       string    `json:"card"` // hash of ID and secret
	InstanceID string    `json:"instance_id"`
	HostKeys   []string  `json:"host_keys"` // fingerprints
}

// A Candidate is what an opened card says of itself.
type Candidate struct {
	User       string
	Token      string // as the card has it
	ID         string
	Generation int // 0 if the card does not say
	Supersedes string
	Secret     string
	InstanceID string
	Readers    []string // hashes, nil if the card does not say
	Stanzas    int      // how many the envelope is sealed to
	HostKeys   []string // fingerprints, "SHA256:…"
}

// A Standing is what a card is to a ticket.
type Standing int

const (
	First Standing = iota + 1 // the first of its user
	Again                     // one that was accepted before
	Later                     // of a later generation
)

// A Verdict is what a ticket says about a card that it accepts.
type Verdict struct {
	Standing Standing
	Gap      bool // the card that it replaces was never accepted here
	NewKeys  bool // its host keys are not those of before, or not they alone
}

// HashToken returns the hash of a card's token that a ticket holds.
func HashToken(token string) string { return hash("totp-ticket/token\x00" + token) }

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// ParseTicket reads a ticket. The error is [ErrNoTicket].
func ParseTicket(data []byte) (Ticket, error) {
	var t Ticket
	if len(data) > MaxSize || json.Unmarshal(data, &t) != nil || t.Type != ticketType {
		return Ticket{}, fmt.Errorf("%w; use the file that totpctl user-data --ticket wrote", ErrNoTicket)
	}
	if t.V != 1 {
		return Ticket{}, fmt.Errorf("%w of version 1; a newer totpctl may know version %d", ErrNoTicket, t.V)
	}
	for _, u := range t.Users {
		if u.Name == "" || !strings.HasPrefix(u.Token, "sha256:") || len(u.Token) != len("sha256:")+64 {
			return Ticket{}, fmt.Errorf("%w: it is damaged", ErrNoTicket)
		}
	}
	return t, nil
}

// Marshal returns the ticket as the text of a file.
func (t Ticket) Marshal() ([]byte, error) {
	t.V, t.Type = 1, ticketType
	t.Created, t.Expires = t.Created.UTC().Truncate(time.Second), t.Expires.UTC().Truncate(time.Second)
	b, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// Accept says what a card is to the ticket, and returns the ticket with the card
// remembered. It refuses a card that is not from the instance of the ticket, that
// others than expected can read, or that contradicts one that was accepted.
//
// now is the time of whoever opens the card. The ticket that comes back must be
// stored for good before the card is shown: what was not remembered, a second
// card can contradict.
func (t Ticket) Accept(c Candidate, now time.Time) (Verdict, Ticket, error) {
	i := slices.IndexFunc(t.Users, func(u TicketUser) bool { return u.Name == c.User })
	if i < 0 {
		return Verdict{}, t, fmt.Errorf("%q %w", c.User, ErrNotExpected)
	}
	u := t.Users[i]
	if c.Token == "" || subtle.ConstantTimeCompare([]byte(HashToken(c.Token)), []byte(u.Token)) != 1 {
		return Verdict{}, t, ErrForged
	}
	if err := u.readers(c); err != nil {
		return Verdict{}, t, err
	}
	now = now.UTC().Truncate(time.Second)
	card := hash("totp-ticket/card\x00" + c.ID + "\x00" + c.Secret)
	if len(u.Accepted) == 0 {
		if t.expired(now) {
			return Verdict{}, t, fmt.Errorf("%w, on %s", ErrTicketExpired, t.Expires.UTC().Format(time.DateTime+" MST"))
		}
		return Verdict{Standing: First}, t.remember(i, c, card, now), nil
	}
	last := u.Accepted[len(u.Accepted)-1]
	for j, a := range u.Accepted {
		if a.Card == card {
			if a.Generation < last.Generation {
				return Verdict{}, t, fmt.Errorf("%w: generation %d, and %d was accepted; its codes no longer work", ErrOlderGeneration, a.Generation, last.Generation)
			}
			if len(a.HostKeys) == 0 && len(c.HostKeys) > 0 && t.expired(now) {
				return Verdict{}, t, ErrOtherHostKey
			}
			if len(c.HostKeys) > 0 && a.strange(c.HostKeys) {
				// Whoever can read a card can write it anew, for a server of their own.
				return Verdict{}, t, fmt.Errorf("%w: %q was accepted on %s with other host keys", ErrSecondCard, a.ID, a.Time.Format(time.DateOnly))
			}
			if a.Generation == 0 && c.Generation > 0 && len(c.HostKeys) > 0 {
				t = t.complete(i, j, c)
			}
			return Verdict{Standing: Again}, t, nil
		}
	}
	switch {
	case c.Generation == 0:
		return Verdict{}, t, fmt.Errorf("%w: the compact form does not say which; take the full card from another channel", ErrSecondCard)
	case c.Generation < last.Generation:
		return Verdict{}, t, fmt.Errorf("%w: generation %d, and %d was accepted; its codes no longer work", ErrOlderGeneration, c.Generation, last.Generation)
	case c.Generation == max(last.Generation, 1):
		return Verdict{}, t, fmt.Errorf("%w: %q was accepted on %s", ErrSecondCard, last.ID, last.Time.Format(time.DateOnly))
	}
	v := Verdict{
		Standing: Later,
		Gap:      !slices.ContainsFunc(u.Accepted, func(a Accepted) bool { return a.ID == c.Supersedes }),
		NewKeys:  len(c.HostKeys) == 0 || len(last.HostKeys) == 0 || last.strange(c.HostKeys),
	}
	if v.NewKeys && t.expired(now) {
		// The token may have been read by others since.
		return Verdict{}, t, ErrOtherHostKey
	}
	return v, t.remember(i, c, card, now), nil
}

// strange reports whether there is a host key that the accepted card does not
// name. One that is known does not make up for it: host keys are public, and a
// forger can name the server's beside their own. The compact form has room for one
// of several, or none, so that the others are believed where that is among them,
// until the whole form has named them.
func (a Accepted) strange(keys []string) bool {
	known := func(k string) bool { return slices.Contains(a.HostKeys, k) }
	if a.Generation == 0 {
		return len(a.HostKeys) > 0 && !slices.ContainsFunc(keys, known)
	}
	return slices.ContainsFunc(keys, func(k string) bool { return !known(k) })
}

func (t Ticket) expired(now time.Time) bool { return !t.Expires.IsZero() && now.After(t.Expires) }

// readers compares who can read a card with who should.
func (u TicketUser) readers(c Candidate) error {
	if c.Readers == nil {
		// The compact form has no room for them, and the envelope their number.
		if c.Stanzas < len(u.Must) || c.Stanzas > len(u.Must)+len(u.May) {
			return fmt.Errorf("%w: it has %d readers, and %d to %d are expected", ErrReaders, c.Stanzas, len(u.Must), len(u.Must)+len(u.May))
		}
		return nil
	}
	for _, r := range c.Readers {
		if !slices.Contains(u.Must, r) && !slices.Contains(u.May, r) {
			return fmt.Errorf("%w: %s", ErrReaders, r)
		}
	}
	for _, r := range u.Must {
		if !slices.Contains(c.Readers, r) {
			return fmt.Errorf("%w: %s", ErrMissingReaders, r)
		}
	}
	if c.Stanzas != len(c.Readers) {
		return fmt.Errorf("%w: the card names %d readers, and the envelope has %d", ErrReaders, len(c.Readers), c.Stanzas)
	}
	return nil
}

// complete notes what the whole form of a card says beyond the compact one that was
// accepted.
func (t Ticket) complete(i, j int, c Candidate) Ticket {
	t.Users = slices.Clone(t.Users)
	u := &t.Users[i]
	u.Accepted = slices.Clone(u.Accepted)
	u.Accepted[j].Generation, u.Accepted[j].HostKeys = c.Generation, c.HostKeys
	return t
}

func (t Ticket) remember(i int, c Candidate, card string, now time.Time) Ticket {
	t.Users = slices.Clone(t.Users)
	u := &t.Users[i]
	u.Accepted = append(slices.Clone(u.Accepted), Accepted{Time: now, ID: c.ID, Generation: c.Generation, Card: card, InstanceID: c.InstanceID, HostKeys: c.HostKeys})
	return t
}
