// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package frame is the protocol on a virtio-serial port: what the agent in
// the guest writes, and what the receiver on the host answers.
//
// The guest writes a header line, then the envelope as an armored age file
// that ends with a newline:
//
//	TOTP-ENVELOPE 1 ID USER LENGTH
//	-----BEGIN AGE ENCRYPTED FILE-----
//	...
//	-----END AGE ENCRYPTED FILE-----
//
// LENGTH is the number of bytes after the header line, in decimal. The host
// answers with one line: "OK " and the SHA-256 of those LENGTH bytes in
// lower-case hex, once they are on its disk for good, or "ERR " and one word.
//
// # Promises
//
// No line of an envelope can be taken for a header, so that a receiver that
// has lost its place finds the next envelope. Names that a peer sent have been
// checked before they are returned: they are safe as parts of a file name.
//
// # Limits
//
// The protocol authenticates nobody. What the envelope is worth is decided by
// whoever opens it.
package frame

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// MaxPayload is the size in bytes of the largest armored envelope.
	MaxPayload = 64 << 10

	// MaxLine is the length in bytes of the longest line of a frame or an
	// answer, without its newline. A longer one is no part of the protocol.
	MaxLine = 255

	// Prefix begins every header line.
	Prefix = "TOTP-ENVELOPE "
)

var (
	// ErrID means that an envelope ID is not 26 lower-case base32 characters.
	ErrID = errors.New("must be 26 lower-case base32 characters")

	// ErrUser means that a user name is not one that Linux tools accept.
	ErrUser = errors.New("must be a user name of 1 to 32 characters: a-z or _ first, then dots, - and 0-9 as well")

	// ErrHeader means that a line is not a header of this protocol.
	ErrHeader = errors.New("not a frame header")

	// ErrSize means that a header announces no bytes, or more than MaxPayload.
	ErrSize = errors.New("length out of range")

	// ErrAnswer means that a line is not an answer of this protocol.
	ErrAnswer = errors.New("not an answer of this protocol")

	// ErrRefused means that the host answered with ERR.
	ErrRefused = errors.New("refused by the host")
)

// Header announces an envelope.
type Header struct {
	ID, User string
	Length   int // bytes of payload
}

// String returns the header line with its newline.
func (h Header) String() string {
	return fmt.Sprintf("%s1 %s %s %d\n", Prefix, h.ID, h.User, h.Length)
}

// ParseHeader reads a header line. A newline, with or without a carriage
// return, may end it. On [ErrSize] the header's names are returned as well.
func ParseHeader(line string) (Header, error) {
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	rest, ok := strings.CutPrefix(line, Prefix)
	f := strings.Split(rest, " ")
	if !ok || len(f) != 4 || f[0] != "1" {
		return Header{}, ErrHeader
	}
	h := Header{ID: f[1], User: f[2]}
	if err := CheckID(h.ID); err != nil {
		return Header{}, err
	}
	if err := CheckUser(h.User); err != nil {
		return Header{}, err
	}
	if !madeOf(f[3], digits, 1, 20) {
		return Header{}, ErrHeader
	}
	n, err := strconv.Atoi(f[3])
	if err != nil || n < 1 || n > MaxPayload || strconv.Itoa(n) != f[3] {
		return h, ErrSize
	}
	h.Length = n
	return h, nil
}

// Marshal returns a whole frame. A leading empty line ends whatever an
// earlier frame, cut short, left unfinished at the receiver. The payload must
// be an armored age file that ends with a newline.
func Marshal(id, user string, payload []byte) ([]byte, error) {
	if err := CheckID(id); err != nil {
		return nil, err
	}
	if err := CheckUser(user); err != nil {
		return nil, err
	}
	if len(payload) == 0 || len(payload) > MaxPayload || payload[len(payload)-1] != '\n' {
		return nil, ErrSize
	}
	h := Header{ID: id, User: user, Length: len(payload)}.String()
	out := make([]byte, 0, 1+len(h)+len(payload))
	out = append(out, '\n')
	out = append(out, h...)
	return append(out, payload...), nil
}

// OK returns the answer for a payload that has been stored.
func OK(payload []byte) string {
	sum := sha256.Sum256(payload)
	return "OK " + hex.EncodeToString(sum[:]) + "\n"
}

// Word says why a host refuses an envelope.
type Word string

// The words of the protocol.
const (
	WordFormat  Word = "format"  // not a header, or a line that cannot be part of an envelope
	WordName    Word = "name"    // the ID or the user name is not of the right form
	WordSize    Word = "size"    // LENGTH is zero or beyond MaxPayload
	WordLength  Word = "length"  // the envelope does not end where LENGTH says
	WordTimeout Word = "timeout" // the envelope stopped in the middle
	WordAge     Word = "age"     // the payload is not an armored age file
	WordExists  Word = "exists"  // another envelope of this name has been stored already
	WordLimit   Word = "limit"   // this guest has sent more envelopes than a host takes
	WordStore   Word = "store"   // the host could not write its disk
)

// Err returns the answer that refuses an envelope.
func Err(w Word) string {
	return "ERR " + string(w) + "\n"
}

// ParseAnswer reads the host's answer: it returns the hash of an OK, in hex,
// or an error that is [ErrRefused] with the host's word, or [ErrAnswer].
func ParseAnswer(line string) (sum string, err error) {
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if sum, ok := strings.CutPrefix(line, "OK "); ok && madeOf(sum, digits+"abcdef", 64, 64) {
		return sum, nil
	}
	if word, ok := strings.CutPrefix(line, "ERR "); ok && madeOf(word, lower, 1, 16) {
		return "", fmt.Errorf("%w: %q", ErrRefused, word)
	}
	return "", ErrAnswer
}

// CheckID returns an error that is [ErrID] if id is not an envelope ID.
func CheckID(id string) error {
	if !madeOf(id, lower+"234567", 26, 26) {
		return fmt.Errorf("envelope id: %.64q: %w", id, ErrID)
	}
	return nil
}

// CheckUser returns an error that is [ErrUser] if name cannot be the name of
// a user. See useradd(8).
func CheckUser(name string) error {
	if !madeOf(name, lower+digits+"_.-", 1, 32) || !madeOf(name[:1], lower+"_", 1, 1) {
		return fmt.Errorf("user: %.64q: %w", name, ErrUser)
	}
	return nil
}

// ArmoredSize returns the size in bytes of n bytes in age's armor.
func ArmoredSize(n int) int {
	const marks = len("-----BEGIN AGE ENCRYPTED FILE-----\n") + len("-----END AGE ENCRYPTED FILE-----\n")
	body := (n + 2) / 3 * 4
	return marks + body + (body+63)/64
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
)

// madeOf tells whether s consists of least to most characters of chars.
func madeOf(s, chars string, least, most int) bool {
	return len(s) >= least && len(s) <= most && strings.Trim(s, chars) == ""
}
