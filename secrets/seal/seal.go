// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package seal puts a text into an envelope that only its recipients can open:
// one age file (https://age-encryption.org/v1), which age(1) opens as well.
//
// Recipients are age's native ones, X25519 and the post-quantum hybrid, the
// tagged ones of hardware keys, and SSH keys of the types ssh-ed25519 and
// ssh-rsa. Those that need a program to run when a text is sealed, and SSH keys
// that cannot decrypt, are refused by name. So is a set in which some recipients
// are post-quantum and others are not, since the weaker copy would undo the
// stronger.
//
// An envelope hides its text and cannot be altered unseen. It does not hide its
// length, nor, for tagged and SSH recipients, whose it is, and it does not say
// who sealed it: anybody who has the recipients can seal to them.
//
// The package reads no file and writes none. age draws its keys from crypto/rand
// itself. Errors quote public keys, shortened, and never an identity.
package seal

import (
	"bytes"
	"errors"
	"fmt"

	"filippo.io/age"
)

// MaxSize is the size in bytes up to which envelopes are opened and texts
// sealed. A card has about 6 KiB.
const MaxSize = 1 << 20

var (
	// ErrNoRecipients means that there is nobody to seal to.
	ErrNoRecipients = errors.New("no recipients")

	// ErrMixedClasses means that some recipients are post-quantum and others
	// are not.
	ErrMixedClasses = errors.New("post-quantum and classic recipients cannot be mixed")

	// ErrTooLarge means that a text, an envelope or an identity file is larger
	// than [MaxSize].
	ErrTooLarge = errors.New("is larger than 1 MiB")
)

// Seal returns a binary age file of the text that each of the recipients can
// open. A recipient that is there twice is sealed to once. The errors are
// [ErrNoRecipients], [ErrMixedClasses], [ErrTooLarge] and [ErrManyRecipients].
func Seal(plaintext []byte, rs []Recipient) ([]byte, error) {
	if len(rs) == 0 {
		return nil, ErrNoRecipients
	}
	if len(plaintext) > MaxSize {
		return nil, fmt.Errorf("text of %d bytes: %w", len(plaintext), ErrTooLarge)
	}
	if err := CheckClasses(rs); err != nil {
		return nil, err
	}
	seen := make(map[string]bool, len(rs))
	to := make([]age.Recipient, 0, len(rs))
	for i, r := range rs {
		if r.age == nil {
			return nil, fmt.Errorf("recipient %d: %w", i+1, ErrBadRecipient)
		}
		if !seen[r.text] {
			seen[r.text] = true
			to = append(to, r.age)
		}
	}
	if len(to) > MaxRecipients {
		return nil, ErrManyRecipients
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if _, err := w.Write(plaintext); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return b.Bytes(), nil
}

// CheckClasses returns [ErrMixedClasses] unless all recipients are of one
// class. It names one of each.
func CheckClasses(rs []Recipient) error {
	for _, r := range rs {
		if r.Class() != rs[0].Class() {
			return fmt.Errorf("recipients %s (%s) and %s (%s): %w; use one kind only: who could break the classic copy would need no other",
				rs[0].Short(), rs[0].Class(), r.Short(), r.Class(), ErrMixedClasses)
		}
	}
	return nil
}
