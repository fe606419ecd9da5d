// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// Envelope is a sealed card that has arrived.
type Envelope struct {
	Owner *Person
	ID    string
	File  string
}

// ErrCard means that what was in an envelope is not what it should be.
var ErrCard = errors.New("not the expected card")

// Envelopes returns what has been received, by name.
func (i *Instance) Envelopes() ([]Envelope, error) {
	names, err := filepath.Glob(filepath.Join(i.ReceivedDir(), "*.age"))
	if err != nil {
		return nil, err
	}
	var list []Envelope
	for _, name := range names {
		base := strings.TrimSuffix(filepath.Base(name), ".age")
		at := strings.LastIndex(base, "-")
		if at < 0 {
			return nil, fmt.Errorf("%s: %w: its name has no id", name, ErrCard)
		}
		p, err := i.person(base[:at])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		list = append(list, Envelope{Owner: p, ID: base[at+1:], File: name})
	}
	return list, nil
}

// Await returns when each enrolled person has at least one envelope that was not
// there before, and returns those.
func (i *Instance) Await(ctx context.Context, before []Envelope) ([]Envelope, error) {
	defer i.lab.Report.Busy("waiting for envelopes", func() string { return lastLine(i.Console) })()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		all, err := i.Envelopes()
		if err != nil {
			return nil, err
		}
		fresh := slices.DeleteFunc(all, func(e Envelope) bool { return slices.Contains(before, e) })
		missing := slices.ContainsFunc(i.People, func(p *Person) bool {
			return p.Enrolled() && !slices.ContainsFunc(fresh, func(e Envelope) bool { return e.Owner == p })
		})
		if !missing {
			return fresh, nil
		}
		if !i.Machine.Running() {
			return nil, fmt.Errorf("waiting for envelopes: the instance has ended: %s", lastLine(i.Console))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for envelopes: %w: %s", ctx.Err(), lastLine(i.Console))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// person returns who a card is for.
func (i *Instance) person(user string) (*Person, error) {
	for _, p := range i.People {
		if p.Name == user && p.Enrolled() {
			return p, nil
		}
	}
	return nil, fmt.Errorf("a card for %s: %w: nobody asked for it", user, ErrCard)
}

// Open opens an envelope with totpctl and checks that it is from this instance.
func (i *Instance) Open(ctx context.Context, e Envelope) (card.Card, error) {
	out, err := output(ctx, i.dir, i.lab.totpctl, "open", "-i", e.Owner.Identity, "--json", e.File)
	if err != nil {
		return card.Card{}, err
	}
	c, err := ReadCard(out)
	if err != nil {
		return card.Card{}, err
	}
	return c, i.check(c, e)
}

// OpenWithAge opens an envelope with age itself.
func (i *Instance) OpenWithAge(ctx context.Context, e Envelope) (text string, c card.Card, err error) {
	out, err := output(ctx, i.dir, "age", "--decrypt", "-i", e.Owner.Identity, e.File)
	if err != nil {
		return "", card.Card{}, err
	}
	if c, err = card.Parse(out); err != nil {
		return "", card.Card{}, err
	}
	return string(out), c, i.check(c, e)
}

// Page returns a card as totpctl shows it on a terminal.
func (i *Instance) Page(ctx context.Context, e Envelope, color bool) (string, error) {
	mode := "--color=never"
	if color {
		mode = "--color=always"
	}
	out, err := output(ctx, i.dir, i.lab.totpctl, "open", mode, "-i", e.Owner.Identity, e.File)
	return string(out), err
}

// ReadCard reads what totpctl prints with --json.
func ReadCard(data []byte) (card.Card, error) {
	var c card.Card
	in := json.NewDecoder(bytes.NewReader(data))
	in.DisallowUnknownFields()
	if err := in.Decode(&c); err != nil {
		return card.Card{}, fmt.Errorf("%w: %w", ErrCard, err)
	}
	return c, c.Validate()
}

// check compares a card with what its owner knows of the instance.
func (i *Instance) check(c card.Card, e Envelope) error {
	for _, f := range []struct{ name, got, want string }{
		{"user", c.User, e.Owner.Name},
		{"id", c.ID, e.ID},
		{"hostname", c.Hostname, i.seed.Hostname},
		{"instance id", c.InstanceID, i.seed.InstanceID},
		{"issuer", c.Issuer, i.lab.Issuer},
		{"token", c.Token, card.TokenMAC(i.token, e.Owner.Name)},
	} {
		if f.got != f.want {
			return fmt.Errorf("%s: %w: %s %q, not %q", e.File, ErrCard, f.name, f.got, f.want)
		}
	}
	return nil
}

// Server is where the instance is logged in to. Its host keys are the card's: no
// other is trusted.
func (i *Instance) Server(c card.Card) (login.Server, error) {
	lines, err := c.KnownHosts(i.Machine.Addr())
	if err != nil {
		return login.Server{}, err
	}
	s := login.Server{Host: "127.0.0.1", Port: i.Machine.Port}
	for _, line := range lines {
		_, key, _ := strings.Cut(line, " ")
		s.HostKeys = append(s.HostKeys, key)
	}
	return s, nil
}

// Account is a person who uses a card. The codes given out for a card are
// remembered for as long as the instance is.
func (i *Instance) Account(c card.Card) (login.Account, error) {
	p, err := i.person(c.User)
	if err != nil {
		return login.Account{}, err
	}
	if i.codes[c.ID] == nil {
		i.codes[c.ID] = login.NewCodes(c.Secret, c.BackupCodes)
	}
	return login.Account{User: p.Name, Key: p.Key, Codes: i.codes[c.ID], Password: p.Password}, nil
}
