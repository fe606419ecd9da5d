// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package card makes the enrollment card: the page by which the owner of a
// server puts a secret into an authenticator app and logs in, and the line that
// programs read.
//
// [Card.Text] is the text that is sealed. A terminal shows it as it stands: no
// control character but the newline, and no line wider than 80 columns but the
// last, which is one JSON object. Its size is a multiple of 512 bytes, so that
// an envelope's length tells little of what is in it.
//
// [Parse] reads that line and nothing else of the text, and takes only values
// that are harmless to show, so that a card somebody forged cannot write to the
// reader's terminal what it likes. Whoever shows an opened card should show
// [Card.Page] of what Parse returned, not the text. That a card is genuine only
// its token says, which [TokenMAC] makes.
//
// The package reads no file, clock or random source. A card prints as a
// placeholder under every fmt verb; its JSON form holds the secret, as it must.
package card

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"time"
)

// Version is the version of the JSON object, its first field. Fields may be
// added to an object of the same version.
const Version = 1

// The types of card.
const (
	Type        = "totp-enrollment"
	TypeCompact = "totp-enrollment/compact" // read of a compact object; never written
)

// A Card is one user's enrollment on one server, as the JSON object says it.
type Card struct {
	V           int       `json:"v"`           // 1
	Type        string    `json:"type"`        // [Type]
	ID          string    `json:"id"`          // 26 characters of lower case base32
	Generation  int       `json:"generation"`  // from 1; one more with each reset
	Supersedes  string    `json:"supersedes"`  // the id of the card before, or empty
	Token       string    `json:"token"`       // see [TokenMAC], or empty
	InstanceID  string    `json:"instance_id"` // as cloud-init calls it, or empty
	Hostname    string    `json:"hostname"`
	User        string    `json:"user"`
	Issuer      string    `json:"issuer"`
	Created     time.Time `json:"created"` // by the server's clock, to the second
	OTPAuth     string    `json:"otpauth"` // key URI
	Secret      string    `json:"secret"`  // 32 characters of base32
	Algorithm   string    `json:"algorithm"`
	Digits      int       `json:"digits"`
	Period      int       `json:"period"` // seconds
	BackupCodes []string  `json:"backup_codes"`
	HostKeys    []string  `json:"host_keys"`  // see [HostKey]
	Recipients  []string  `json:"recipients"` // hashes of all who can read the card
	Escrow      []string  `json:"escrow,omitempty"`
	Agent       string    `json:"agent"` // version of the program that made it
}

const hidden = "card.Card(hidden)"

// String returns a placeholder.
func (Card) String() string { return hidden }

// GoString returns a placeholder.
func (Card) GoString() string { return hidden }

// Format writes a placeholder, whatever the verb.
func (Card) Format(s fmt.State, _ rune) { fmt.Fprint(s, hidden) }

// TokenMAC returns the token that a user's card carries: the HMAC-SHA-256
// (RFC 2104), keyed with the enrollment token of the instance's user-data, of
// "totp-agent/1", a NUL byte and the user's name, in base64url without padding.
// Who knows the enrollment token can check it; the card of one user does not
// tell the token of another.
func TokenMAC(token []byte, user string) string {
	m := hmac.New(sha256.New, token)
	m.Write([]byte("totp-agent/1\x00" + user))
	return base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}
