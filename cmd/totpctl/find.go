// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

var (
	// errCutOff is the fault of an armored envelope that has no last line.
	errCutOff = errors.New("is cut off: its last line, -----END AGE ENCRYPTED FILE-----, is missing")

	// errIncomplete is the fault of a console block of which lines are missing
	// in both copies.
	errIncomplete = errors.New("is incomplete")
)

// A finding is an envelope, or what is left of one, in the input.
type finding struct {
	form string // what it was found as: "age file", "armored", "base64" or "console block"
	line int    // where it begins, from 1; 0 if that says nothing

	// As the marks on a console tell. Where a block is incomplete the ID may be
	// its beginning alone, and the user may be unknown.
	id, user string

	sealed []byte // for seal.Open
	fault  error  // why it cannot be opened, before any attempt
}

// name names a finding for people.
func (f finding) name() string {
	var b strings.Builder
	b.WriteString("envelope")
	if f.id != "" {
		fmt.Fprintf(&b, " %q", f.id)
	}
	if f.user != "" {
		fmt.Fprintf(&b, " of user %q", f.user)
	}
	if f.line > 0 {
		fmt.Fprintf(&b, " (%s, line %d)", f.form, f.line)
	} else {
		fmt.Fprintf(&b, " (%s)", f.form)
	}
	return b.String()
}

const (
	binaryIntro = "age-encryption.org/v1"
	armorBegin  = "-----BEGIN AGE ENCRYPTED FILE-----"
	armorEnd    = "-----END AGE ENCRYPTED FILE-----"
)

// findEnvelopes finds the envelopes in an input of any kind: a binary age file,
// armored ones amid any text, console blocks in a captured log, and, where there
// is none of these, the bare base64 of size-limited channels. Envelopes that
// occur twice are returned once.
func findEnvelopes(input []byte) []finding {
	if trimmed := bytes.TrimLeft(input, " \t\r\n"); bytes.HasPrefix(trimmed, []byte(binaryIntro+"\n")) {
		return []finding{{form: "age file", sealed: trimmed}}
	}
	found := append(findConsole(input), findArmored(input)...)
	if len(found) == 0 {
		// The lines of a console block hold base64 too, so this comes last.
		found = findBase64(input)
	}
	return distinct(found)
}

func findConsole(input []byte) []finding {
	var found []finding
	for _, b := range console.Decode(input) {
		f := finding{form: "console block", id: b.ID, user: b.User, sealed: b.Sealed}
		switch {
		case b.Complete:
		case len(b.Missing) > 0:
			f.fault = withHints(fmt.Errorf("%w: %s of %d %s missing or damaged in both of its copies", errIncomplete,
				numbered(len(b.Missing), ranges(b.Missing)), b.Lines, isAre(len(b.Missing))),
				"get the whole log: a console keeps its last lines only, and what is pasted from a screen may lack some")
		default:
			f.fault = fmt.Errorf("%w: its lines are not of one envelope", errIncomplete)
		}
		found = append(found, f)
	}
	return found
}

// findArmored finds armored age files. What stands before the first mark on its
// line (an indentation, a mail's quote marks, a logger's prefix) is taken off
// the lines of the block.
func findArmored(input []byte) []finding {
	var found []finding
	var block *finding
	var prefix string
	number := 0
	for line := range bytes.Lines(input) {
		number++
		text := strings.TrimRight(string(line), " \t\r\n")
		if before, ok := strings.CutSuffix(text, armorBegin); ok {
			if block != nil {
				block.fault = errCutOff
				found = append(found, *block)
			}
			block, prefix = &finding{form: "armored", line: number, sealed: []byte(armorBegin + "\n")}, before
			continue
		}
		if block == nil {
			continue
		}
		text = strings.TrimPrefix(text, prefix)
		text = strings.TrimLeft(text, " \t")
		block.sealed = append(append(block.sealed, text...), '\n')
		if text == armorEnd {
			found = append(found, *block)
			block = nil
		}
	}
	if block != nil {
		block.fault = errCutOff
		found = append(found, *block)
	}
	return found
}

// base64Intro is how any base64 of an age file begins.
const base64Intro = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"

// base64File is one with what follows it.
var base64File = regexp.MustCompile(`^[A-Za-z0-9+/\r\n]*={0,2}`)

func findBase64(input []byte) []finding {
	var found []finding
	line, counted := 1, 0
	for at := 0; ; {
		begin := bytes.Index(input[at:], []byte(base64Intro))
		if begin < 0 {
			return found
		}
		begin += at
		// Where no "=" ends it, the next line may be another one.
		at = begin + len(base64Intro)
		end := len(input)
		if next := bytes.Index(input[at:], []byte(base64Intro)); next >= 0 {
			end = at + next
		}
		line += bytes.Count(input[counted:begin], []byte("\n"))
		counted = begin
		f := finding{form: "base64", line: line}
		text := bytes.Map(func(r rune) rune {
			if r == '\r' || r == '\n' {
				return -1
			}
			return r
		}, base64File.Find(input[begin:end]))
		// A cut-off end leaves an envelope that does not authenticate; that is
		// for the one who opens it to say.
		text = bytes.TrimRight(text, "=")
		f.sealed = make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
		n, _ := base64.RawStdEncoding.Decode(f.sealed, text)
		f.sealed = f.sealed[:n]
		found = append(found, f)
	}
}

// distinct drops findings that have occurred before, in whatever form.
func distinct(found []finding) []finding {
	seen := make(map[[sha256.Size]byte]bool)
	kept := found[:0]
	for _, f := range found {
		file, err := seal.Dearmor(f.sealed)
		if err != nil {
			file = f.sealed
		}
		sum := sha256.Sum256(file)
		if f.fault == nil && seen[sum] {
			continue
		}
		seen[sum] = true
		kept = append(kept, f)
	}
	return kept
}

func numbered(n int, list string) string {
	if n == 1 {
		return "line " + list
	}
	return "lines " + list
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
