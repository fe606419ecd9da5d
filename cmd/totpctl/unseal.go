// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// errNoCard means that an envelope was opened and something else was in it.
var errNoCard = errors.New("was opened, but holds no enrollment card")

// A failure is a finding that gave no card.
type failure struct {
	finding
	err error
}

func (f failure) text() string {
	return fmt.Sprintf("the %s %v", f.name(), f.err)
}

// openAll opens what can be opened. Cards of the same ID that differ are all
// returned: whoever forges one must not hide the other by coming first. stanzas
// has, by [cardKey], how many recipients a card was sealed to. A card in which vet
// finds something is a failure; vet may be nil.
func openAll(found []finding, ids []age.Identity, vet func(card.Card) error) (opened []card.Card, stanzas map[string]int, failed []failure) {
	stanzas = make(map[string]int)
	left := maxTrials
	var untried []finding
	for _, f := range found {
		if f.fault != nil {
			failed = append(failed, failure{f, f.fault})
			continue
		}
		// One that needs few trials may have them where another one needs too many.
		n := trials(f, ids)
		if n > left {
			untried = append(untried, f)
			continue
		}
		left -= n
		c, err := openOne(f, ids)
		if err == nil && vet != nil {
			err = vet(c)
		}
		switch {
		case err != nil:
			failed = append(failed, failure{f, err})
		case !slices.ContainsFunc(opened, func(o card.Card) bool { return sameCard(o, c) }):
			// The same card may be in the input twice, sealed twice or in two
			// forms; once is enough.
			stanzas[cardKey(c)] = countStanzas(f.sealed)
			opened = append(opened, c)
		}
	}
	// This comes first, since of a long list only the beginning is shown.
	switch n := len(untried) - 1; {
	case n == 0:
		failed = slices.Insert(failed, 0, failure{untried[0], fmt.Errorf("was not tried: %w", errTrials)})
	case n > 0:
		failed = slices.Insert(failed, 0, failure{untried[0], fmt.Errorf("and %d after it were not tried: %w", n, errTrials)})
	}
	return opened, stanzas, failed
}

// trials returns what it may cost to open a finding, in uses of an identity of X25519 on
// a recipient. RSA takes many times as long. What is refused before a trial costs nothing.
func trials(f finding, ids []age.Identity) int {
	file, err := seal.Dearmor(f.sealed)
	if err != nil {
		return 0
	}
	header, err := age.ExtractHeader(bytes.NewReader(file))
	n := bytes.Count(header, []byte("\n-> "))
	if err != nil || n > seal.MaxRecipients {
		return 0
	}
	return (n + (rsaTrials-1)*bytes.Count(header, []byte("\n-> ssh-rsa "))) * len(ids)
}

const rsaTrials = 16

func openOne(f finding, ids []age.Identity) (card.Card, error) {
	plaintext, err := seal.Open(f.sealed, ids...)
	if err != nil {
		return card.Card{}, openError(f, err)
	}
	// Channels with little room carry another form of the card.
	c, err := card.ParseCompact(plaintext)
	if errors.Is(err, card.ErrNoCard) {
		c, err = card.Parse(plaintext)
	}
	if field := new(card.FieldError); errors.Is(err, card.ErrVersion) && errors.As(err, &field) {
		return card.Card{}, withHints(wrap(fmt.Sprintf("was opened, but its card has the %s %q, which this totpctl does not know", field.Field, field.Value), err),
			"a newer totpctl may read it")
	}
	if err != nil {
		return card.Card{}, fmt.Errorf("%w: %w", errNoCard, err)
	}
	if f.id != "" && (f.id != c.ID || f.user != c.User) {
		return card.Card{}, fmt.Errorf("holds another card than its marks say: %q of user %q", c.ID, c.User)
	}
	return c, nil
}

// openError is the predicate of a sentence that begins with the envelope.
func openError(f finding, err error) error {
	switch {
	case errors.Is(err, seal.ErrWrongIdentity):
		return withHints(wrap("is sealed to other recipients: this identity does not open it", err), identityHint(f))
	case errors.Is(err, seal.ErrDamaged), errors.Is(err, seal.ErrNoEnvelope), errors.Is(err, seal.ErrSeveral):
		return withHints(wrap("is damaged: it was truncated or altered on its way", err),
			"get it again, whole; if it comes the same way a second time, use another channel")
	case errors.Is(err, seal.ErrManyRecipients):
		return wrap("has more recipients than an enrollment card can have", err)
	case errors.Is(err, seal.ErrTooLarge):
		return wrap("is too large to be an enrollment card", err)
	}
	return err
}

// identityHint tells which kind of identity an envelope asks for, as its header
// tells everybody.
func identityHint(f finding) string {
	types := stanzaTypes(f.sealed)
	switch {
	case types["ssh-ed25519"]:
		return "it is sealed to an SSH key of the type ed25519: -i ~/.ssh/id_ed25519"
	case types["ssh-rsa"]:
		return "it is sealed to an SSH key of the type RSA: -i ~/.ssh/id_rsa"
	case types["p256tag"], types["mlkem768p256tag"]:
		return "it is sealed to a key in hardware: open it by age with the plugin of that device, age -d -i FILE"
	case types["mlkem768x25519"]:
		return "it is sealed to a post-quantum age key, as totpctl keygen --pq makes: -i FILE"
	case types["scrypt"]:
		return "it is sealed to a passphrase, as servers never do: open it by age -d"
	}
	return "name the identity it was sealed to: -i FILE"
}

// stanzaTypes are the types of the recipients of an age file, see
// https://c2sp.org/age.
func stanzaTypes(sealed []byte) map[string]bool {
	types := make(map[string]bool)
	file, err := seal.Dearmor(sealed)
	if err != nil {
		return types
	}
	header, err := age.ExtractHeader(bytes.NewReader(file))
	if err != nil {
		return types
	}
	for line := range strings.Lines(string(header)) {
		if stanza, ok := strings.CutPrefix(line, "-> "); ok {
			types[strings.Fields(stanza)[0]] = true
		}
	}
	return types
}

// noneOpened says why there is no card to show.
func noneOpened(failed []failure) error {
	if len(failed) == 1 {
		return fmt.Errorf("the %s %w", failed[0].name(), failed[0].err)
	}
	// The reasons stand in the order of the input; hints that several share are
	// given once.
	var lines, hints []string
	for _, f := range failed {
		lines = append(lines, f.text())
		for _, h := range hintsOf(f.err) {
			if !slices.Contains(hints, h) {
				hints = append(hints, h)
			}
		}
	}
	return withHints(fmt.Errorf("none of the %d envelopes in the input could be opened", len(failed)), append(few(lines), hints...)...)
}

// nothingFound tells apart the inputs in which people look for envelopes in vain.
func nothingFound(name string, input []byte) error {
	what := "standard input"
	if name != "-" {
		what = fmt.Sprintf("file %q", name)
	}
	if len(bytes.TrimSpace(input)) == 0 {
		return fmt.Errorf("%s is empty", what)
	}
	err := fmt.Errorf("%s holds no envelope", what)
	switch {
	case bytes.Contains(input, []byte("AGE-SECRET-KEY-")), bytes.Contains(input, []byte("PRIVATE KEY-----")):
		return withHints(err, "it is an identity: name it with -i, before the envelope")
	case bytes.Contains(input, []byte(`"totp-enrollment"`)):
		return withHints(err, "it is a card that has been opened already")
	case bytes.HasPrefix(bytes.TrimSpace(input), []byte("age1")), bytes.HasPrefix(bytes.TrimSpace(input), []byte("ssh-")):
		return withHints(err, "it is a recipient, which servers seal to")
	}
	return withHints(err, "an envelope begins with "+armorBegin+", or with \"-----BEGIN TOTP ENVELOPE\" in a console log")
}
