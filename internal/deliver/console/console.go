// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package console is the codec for envelopes on a system console: it prints
// an envelope as text that survives a console, and finds envelopes in a
// captured console log.
//
// A block is lines of at most 79 columns, printed twice:
//
//	-----BEGIN TOTP ENVELOPE ID8 USER LINES-----
//	TOTP ID8 001 CRC BASE64
//	TOTP ID8 002 CRC BASE64
//	...
//	-----END TOTP ENVELOPE ID-----
//
// ID8 is the first eight characters of the envelope's ID. CRC is the CRC-32
// (IEEE 802.3) of "ID8 NNN BASE64" in eight hex digits, and BASE64 stands for
// 36 bytes of a stream: the header line of package frame, the age file, the
// SHA-256 of both, and zeros up to a whole line. Numbers have three digits, or
// four in a block of more than 999 lines. The marks help people; the codec
// needs the numbered lines alone.
//
// # Promises
//
// What Decode returns as complete is, byte for byte, an envelope that Encode
// printed. Each line is taken from whichever copy has it whole. Other text
// between the lines does no harm, and neither do carriage returns, terminal
// escape sequences, prefixes such as time stamps, or a message of the kernel
// or of another program that broke a line in two.
//
// # Limits
//
// The hash finds damage, not forgery: who can write to the console can print
// an envelope of their own. Decode looks at a line and at the few that follow
// it; text whose lines were put into another order is found, pieces of one
// broken line far apart are not.
package console

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// MaxSealed is the size in bytes of the largest age file that Encode takes.
const MaxSealed = frame.MaxPayload

// ErrSize means that an envelope is empty or larger than [MaxSealed].
var ErrSize = errors.New("envelope size out of range")

// Found is an envelope, or what is left of one, in a console log.
type Found struct {
	// ID is the envelope's ID, or only its first eight characters if the log
	// has no more of it.
	ID string

	// User is the login name, or empty if the log does not tell.
	User string

	// Sealed is the envelope, a binary age file. It is nil unless Complete.
	Sealed []byte

	// Complete tells that every line is there and that the whole has the hash
	// that was printed with it.
	Complete bool

	// Lines is how many numbered lines the block has, or the highest number
	// seen if the log does not tell.
	Lines int

	// Missing are the numbers of the lines that no copy has whole. If it is
	// empty and Complete is false, then the lines are not of one envelope.
	Missing []int
}

// Encode returns an envelope as text for a console, both copies of it. The
// sealed envelope is a binary age file. Errors are [frame.ErrID],
// [frame.ErrUser] and [ErrSize].
func Encode(id, user string, sealed []byte) ([]byte, error) {
	if err := frame.CheckID(id); err != nil {
		return nil, err
	}
	if err := frame.CheckUser(user); err != nil {
		return nil, err
	}
	if len(sealed) == 0 || len(sealed) > MaxSealed {
		return nil, fmt.Errorf("%w: %d bytes", ErrSize, len(sealed))
	}
	stream := []byte(frame.Header{ID: id, User: user, Length: len(sealed)}.String())
	stream = append(stream, sealed...)
	sum := sha256.Sum256(stream)
	stream = append(stream, sum[:]...)
	lines := lineCount(len(stream))
	stream = append(stream, make([]byte, lines*lineBytes-len(stream))...)

	id8 := id[:8]
	width := numberWidth(lines)
	out := make([]byte, 0, 2*(lines*lineLen(width)+lines+200))
	for range copies {
		// The empty line keeps the block apart from a prompt without newline.
		out = fmt.Appendf(out, "\nSealed card for %s; totpctl open reads this log\n", user)
		out = fmt.Appendf(out, "-----BEGIN TOTP ENVELOPE %s %s %d-----\n", id8, user, lines)
		for n := range lines {
			chunk := base64.StdEncoding.EncodeToString(stream[n*lineBytes:][:lineBytes])
			number := fmt.Sprintf("%0*d", width, n+1)
			out = fmt.Appendf(out, "TOTP %s %s %08x %s\n", id8, number, lineSum(id8, number, chunk), chunk)
		}
		out = fmt.Appendf(out, "-----END TOTP ENVELOPE %s-----\n", id)
	}
	return out, nil
}

const (
	copies    = 2
	lineBytes = 36
	chunkLen  = lineBytes / 3 * 4
)

// maxLines is the length of the longest block.
var maxLines = lineCount(len(frame.Prefix) + 80 + MaxSealed + sha256.Size)

// lineCount returns how many lines a stream of n bytes takes.
func lineCount(n int) int { return (n + lineBytes - 1) / lineBytes }

func numberWidth(lines int) int {
	if lines > 999 {
		return 4
	}
	return 3
}

// lineLen returns the length of a numbered line, the same for all of a block.
func lineLen(width int) int {
	return len("TOTP ") + 8 + 1 + width + 1 + 8 + 1 + chunkLen
}

func lineSum(id8, number, chunk string) uint32 {
	return crc32.ChecksumIEEE([]byte(id8 + " " + number + " " + chunk))
}
