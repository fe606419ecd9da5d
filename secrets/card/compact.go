// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"encoding/json"
	"strings"
)

// maxCompact is the size in bytes of a compact object with its newline that,
// sealed to one X25519 recipient, has less than 1020 characters of base64: what
// the metadata services with the least room take.
const maxCompact = 562

// A compact object has the fields without which nobody can log in, under short
// names.
type compact struct {
	V   int      `json:"v"`
	ID  string   `json:"id"`
	Tok string   `json:"tok"`
	IID string   `json:"iid"`
	U   string   `json:"u"`
	Sec string   `json:"sec"`
	Bak []string `json:"bak"`
	HK  string   `json:"hk"`
}

// Compact returns the card as a JSON object of 562 bytes at most, newline
// included, for channels with little room: version, id, token, instance-id,
// user, secret, backup codes and one host key, without its blob where that would
// be too much. The error is a [*FieldError].
func (c Card) Compact() ([]byte, error) { return c.compact(maxCompact) }

// ShortCompact is Compact without the host key's blob: the least that makes a
// card, for recipients that take more room.
func (c Card) ShortCompact() ([]byte, error) { return c.compact(0) }

// compact leaves the blob out if the object would be larger than limit.
func (c Card) compact(limit int) ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	o := compact{V: c.V, ID: c.ID, Tok: c.Token, IID: c.InstanceID, U: c.User, Sec: c.Secret, Bak: c.BackupCodes, HK: c.mainHostKey()}
	if o.Bak == nil {
		o.Bak = []string{}
	}
	line, err := jsonLine(o)
	if err != nil {
		return nil, err
	}
	if len(line) > limit && o.HK != "" {
		typ, fp, _, _ := splitHostKey(o.HK)
		o.HK = typ + " " + fp
		return jsonLine(o)
	}
	return line, nil
}

// CompactSize returns the size in bytes that ShortCompact has of a card with so
// many backup codes, with or without a token, on an instance whose id is a UUID
// and whose host key is of the type Ed25519.
func CompactSize(user string, backupCodes int, token bool) int {
	x := strings.Repeat("x", 64)
	o := compact{V: Version, ID: x[:idLen], IID: x[:36], U: user, Sec: x[:secretLen], Bak: []string{}, HK: "ssh-ed25519 " + fingerprintPrefix + x[:43]}
	if token {
		o.Tok = x[:tokenLen]
	}
	for range backupCodes {
		o.Bak = append(o.Bak, x[:8])
	}
	line, _ := jsonLine(o) // strings never fail
	return len(line)
}

// ParseCompact reads a compact object, alone or as the last line of a text. The
// card has the type [TypeCompact], the fields that the object has, and a key URI
// made of user and instance-id. The errors are [ErrNoCard], [ErrTooLarge] and a
// [*FieldError].
func ParseCompact(plaintext []byte) (Card, error) {
	line, err := lastLine(plaintext)
	if err != nil {
		return Card{}, err
	}
	// A full card has a version as well, but no field "u".
	var o compact
	if json.Unmarshal(line, &o) != nil || o.U == "" {
		return Card{}, ErrNoCard
	}
	c := Card{
		V: o.V, Type: TypeCompact, ID: o.ID, Token: o.Tok, InstanceID: o.IID, User: o.U, Secret: o.Sec,
		Algorithm: "SHA1", Digits: 6, Period: 30, BackupCodes: o.Bak,
	}
	if o.HK != "" {
		c.HostKeys = []string{o.HK}
	}
	c.OTPAuth = "otpauth://totp/" + c.compactAccount() + "?secret=" + c.Secret
	if err := c.Validate(); err != nil {
		return Card{}, err
	}
	return c, nil
}

// compactAccount is the label in the authenticator app. An instance-id may have
// characters that a label may not.
func (c Card) compactAccount() string {
	if c.InstanceID == "" {
		return c.User
	}
	return c.User + "@" + CleanHostname(c.InstanceID)
}

// mainHostKey returns the host key that ssh is likely to be shown: Ed25519,
// else the first.
func (c Card) mainHostKey() string {
	for _, k := range c.HostKeys {
		if strings.HasPrefix(k, "ssh-ed25519 ") {
			return k
		}
	}
	if len(c.HostKeys) > 0 {
		return c.HostKeys[0]
	}
	return ""
}
