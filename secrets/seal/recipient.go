// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal

import (
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"
	"filippo.io/age/tag"
	"golang.org/x/crypto/ssh"
)

// Why a string is no recipient that can be sealed to. Each comes with what to
// do about it.
var (
	ErrUnknownRecipient    = errors.New("is no recipient")
	ErrBadRecipient        = errors.New("is damaged or cut short")
	ErrIdentityAsRecipient = errors.New("is a secret key where a recipient is wanted")
	ErrUnsupportedSSH      = errors.New("is an SSH key that cannot decrypt")
	ErrPlugin              = errors.New("needs an age plugin")
	ErrShortRSA            = errors.New("is an RSA key of less than 2048 bits")
	ErrKeyOptions          = errors.New("has options of authorized_keys before the key")
)

// A Class is what an envelope is proof against. The recipients of one envelope
// are of one class.
type Class int

const (
	Classic     Class = iota + 1 // today's computers
	PostQuantum                  // quantum computers as well
)

// String returns the class for people.
func (c Class) String() string {
	switch c {
	case Classic:
		return "classic"
	case PostQuantum:
		return "post-quantum"
	}
	return "no class"
}

// A Kind is a type of recipient.
type Kind int

const (
	X25519     Kind = iota + 1 // age1…
	Hybrid                     // age1pq1…, ML-KEM-768 and X25519
	Tag                        // age1tag1…, P-256 on a hardware key
	TagPQ                      // age1tagpq1…, ML-KEM-768 and P-256 on a hardware key
	SSHEd25519                 // ssh-ed25519 …
	SSHRSA                     // ssh-rsa …, from 2048 bits
)

var kindNames = [...]string{X25519: "age1", Hybrid: "age1pq", Tag: "age1tag", TagPQ: "age1tagpq", SSHEd25519: "ssh-ed25519", SSHRSA: "ssh-rsa"}

// String returns the prefix by which recipients of this kind are known.
func (k Kind) String() string {
	if k < X25519 || k > SSHRSA {
		return "no kind"
	}
	return kindNames[k]
}

// A Recipient is a public key to seal to. The zero Recipient is none.
type Recipient struct {
	kind  Kind
	text  string // canonical: without comment
	short string
	age   age.Recipient
}

// accepted names every kind, and how to come to one.
const accepted = "use a recipient that begins with age1, age1pq1, age1tag1 or age1tagpq1, or an ssh-ed25519 or ssh-rsa key; totpctl keygen makes one"

// maxRecipient is age's own limit to a line of a recipients file. The longest
// recipient, age1tagpq, has 2015 bytes, an RSA key of 16384 bits 2800.
const maxRecipient = 8 << 10

// minRSA is age's own limit.
const minRSA = 2048

// ParseRecipient reads one recipient, as age(1) takes it on its command line.
// Blanks around it are passed over, and so is the comment of an SSH key. The
// errors are [ErrUnknownRecipient], [ErrBadRecipient], [ErrIdentityAsRecipient],
// [ErrUnsupportedSSH], [ErrPlugin], [ErrShortRSA] and [ErrKeyOptions].
func ParseRecipient(s string) (Recipient, error) {
	s = strings.TrimSpace(s)
	fail := func(rule error, fix string) (Recipient, error) {
		return Recipient{}, fmt.Errorf("recipient %q: %w; %s", abbreviate(s), rule, fix)
	}
	if looksSecret(s) {
		return Recipient{}, fmt.Errorf("recipient: %w; keep it to yourself and use the line that begins with age1 or ssh-", ErrIdentityAsRecipient)
	}
	if len(s) > maxRecipient {
		return fail(ErrUnknownRecipient, "a recipient has 8 KiB at most")
	}
	const damaged = "copy the whole line again"
	if strings.ContainsFunc(s, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }) {
		return fail(ErrUnknownRecipient, "give one recipient, in one line")
	}
	word, _, _ := strings.Cut(strings.ReplaceAll(s, "\t", " "), " ")
	switch {
	case strings.HasPrefix(s, "age1tagpq1"), strings.HasPrefix(s, "age1tag1"):
		r, err := tag.ParseRecipient(s)
		if err != nil {
			return fail(ErrBadRecipient, damaged)
		}
		if r.Hybrid() {
			return native(TagPQ, r, s), nil
		}
		return native(Tag, r, s), nil
	case strings.HasPrefix(s, "age1pq1"):
		r, err := age.ParseHybridRecipient(s)
		if err != nil {
			return fail(ErrBadRecipient, damaged)
		}
		return native(Hybrid, r, s), nil
	case strings.HasPrefix(s, "age1"):
		r, err := age.ParseX25519Recipient(s)
		if err == nil {
			return native(X25519, r, s), nil
		}
		if name, _, err := plugin.ParseRecipient(s); err == nil {
			return fail(fmt.Errorf("%w, age-plugin-%s", ErrPlugin, name), "no plugin runs where a card is sealed; "+accepted)
		}
		return fail(ErrBadRecipient, damaged)
	case word == "ssh-ed25519", word == "ssh-rsa":
		return parseSSH(s, fail)
	case strings.HasPrefix(word, "ecdsa-sha2-"):
		return fail(ErrUnsupportedSSH, "ECDSA keys only sign; "+accepted)
	case strings.HasPrefix(word, "sk-"):
		return fail(ErrUnsupportedSSH, "a security key (sk-) only signs; "+accepted)
	case strings.HasPrefix(word, "ssh-"):
		return fail(ErrUnsupportedSSH, accepted)
	}
	if _, _, options, _, err := ssh.ParseAuthorizedKey([]byte(s)); err == nil && len(options) > 0 {
		return fail(ErrKeyOptions, "leave them out: begin with ssh-")
	}
	return fail(ErrUnknownRecipient, accepted)
}

// native makes a recipient of what age parsed. Bech32 has one lower case form,
// so that the string is canonical as it stands.
func native(k Kind, r age.Recipient, s string) Recipient {
	prefix := len(k.String()) + len("1") + 4
	if k == X25519 {
		prefix = len("age1") + 4
	}
	return Recipient{kind: k, text: s, short: s[:prefix] + "…" + s[len(s)-4:], age: r}
}

func parseSSH(s string, fail func(error, string) (Recipient, error)) (Recipient, error) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s))
	if err != nil {
		return fail(ErrBadRecipient, "copy the whole line of the .pub file again")
	}
	r := Recipient{
		text:  strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))),
		short: key.Type() + " " + ssh.FingerprintSHA256(key),
	}
	switch key.Type() {
	case ssh.KeyAlgoED25519:
		r.kind = SSHEd25519
		r.age, err = agessh.NewEd25519Recipient(key)
	case ssh.KeyAlgoRSA:
		r.kind = SSHRSA
		if k, ok := key.(ssh.CryptoPublicKey); ok {
			if k, ok := k.CryptoPublicKey().(*rsa.PublicKey); ok && k.N.BitLen() < minRSA {
				return fail(ErrShortRSA, "use one of 2048 bits or more, or better an age1… recipient; totpctl keygen makes one")
			}
		}
		r.age, err = agessh.NewRSARecipient(key)
	default:
		// The key's blob names another type than the line does.
		return fail(ErrBadRecipient, "copy the whole line of the .pub file again")
	}
	if err != nil {
		return fail(ErrBadRecipient, "copy the whole line of the .pub file again")
	}
	return r, nil
}

// String returns the recipient as it is written in a policy, an SSH key without
// its comment.
func (r Recipient) String() string { return r.text }

// Kind returns the recipient's type.
func (r Recipient) Kind() Kind { return r.kind }

// Class returns what the recipient's copy is proof against.
func (r Recipient) Class() Class {
	switch r.kind {
	case Hybrid, TagPQ:
		return PostQuantum
	case X25519, Tag, SSHEd25519, SSHRSA:
		return Classic
	}
	return 0
}

// IsSSH reports whether the recipient is an SSH key.
func (r Recipient) IsSSH() bool { return r.kind == SSHEd25519 || r.kind == SSHRSA }

// Hash returns "sha256:" and the first 16 hexadecimal digits of the SHA-256 of
// [Recipient.String]: enough to tell whether a recipient is an expected one.
func (r Recipient) Hash() string {
	h := sha256.Sum256([]byte(r.text))
	return "sha256:" + hex.EncodeToString(h[:8])
}

// Short returns the recipient for people, in 66 columns at most: beginning and
// end of a native one, type and fingerprint of an SSH key.
func (r Recipient) Short() string { return r.short }

// looksSecret tells secret keys of any kind, so that none is ever quoted.
func looksSecret(s string) bool {
	u := strings.ToUpper(s)
	return strings.Contains(u, "AGE-SECRET-KEY") || strings.Contains(u, "AGE-PLUGIN-") ||
		strings.Contains(u, "PRIVATE KEY") || strings.Contains(u, "PUTTY-USER-KEY-FILE")
}

// abbreviate shortens what somebody gave as a recipient for an error.
func abbreviate(s string) string {
	const head = 24
	if r := []rune(s); len(r) > head {
		return string(r[:head]) + "…"
	}
	return s
}
