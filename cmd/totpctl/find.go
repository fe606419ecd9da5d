// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
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
// armored ones amid any text or in one line of JSON, console blocks in a captured
// log, and, if it contains none of these, the bare base64 of size-limited channels;
// all of them also inside JSON, HTML, quoted-printable and base64.
// Envelopes that occur twice are returned once. Where a hostile input holds more
// than can be looked at, the last finding says so, with the fault errTooMany.
func findEnvelopes(input []byte) []finding {
	if trimmed := bytes.TrimLeft(input, " \t\r\n"); bytes.HasPrefix(trimmed, []byte(binaryIntro+"\n")) {
		return []finding{{form: "age file", sealed: trimmed}}
	}
	return findText(input, nestedLevels).found
}

// search finds the envelopes in a text as it is.
func search(input []byte) collection {
	var c collection
	for _, find := range []func([]byte, *collection){findConsole, findArmored, findRunOn} {
		find(input, &c)
	}
	if len(c.found) == 0 {
		// The lines of a console block hold base64 too, so this comes last.
		findBase64(input, &c)
	}
	return c
}

func findConsole(input []byte, c *collection) {
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
		c.add(f)
	}
}

// findArmored finds armored age files. What stands before the first mark on its
// line (an indentation, a mail's quote marks, a logger's prefix) is taken off
// the lines of the block, with another time in it as well.
func findArmored(input []byte, c *collection) {
	var block *finding
	var prefix string
	number := 0
	for line := range bytes.Lines(input) {
		number++
		text := strings.TrimRight(string(line), " \t\r\n")
		if before, ok := strings.CutSuffix(text, armorBegin); ok {
			if block != nil {
				block.fault = errCutOff
				c.add(*block)
			}
			if c.full {
				return
			}
			block, prefix = &finding{form: "armored", line: number, sealed: []byte(armorBegin + "\n")}, before
			continue
		}
		if block == nil {
			continue
		}
		text, same := strings.CutPrefix(text, prefix)
		text = strings.TrimLeft(text, " \t")
		switch {
		case strings.Contains(text, armorEnd):
			text = armorEnd // without the quotes or tags that may follow
		case !same:
			text = withoutOther(text)
		}
		block.sealed = append(append(block.sealed, text...), '\n')
		switch {
		case text == armorEnd:
			c.add(*block)
			block = nil
		case len(block.sealed) > maxSealed:
			block.sealed, block.fault = nil, errLong
			c.add(*block)
			block = nil
		}
	}
	if block != nil {
		block.fault = errCutOff
		c.add(*block)
	}
}

// withoutOther takes off what a line of armor begins with where it is not what the
// first one began with: the base64 has no blanks.
func withoutOther(text string) string {
	return text[strings.LastIndexAny(text, " \t")+1:]
}

const formBase64 = "base64"

// base64Intro is how any base64 of an age file begins.
const base64Intro = "YWdlLWVuY3J5cHRpb24ub3JnL3Yx"

// escape is what stands for a character of an envelope, or for the end of its
// line, in a string of JSON, and in one inside another: some programs write "/"
// and "+" so as well.
const escape = `\\+(?:[nrt/]|u00(?:0[aAdD]|2[bBfF]|3[dD]))`

var (
	// base64File is an age file in base64, with what follows it.
	base64File = regexp.MustCompile(`^(?:[A-Za-z0-9+/\r\n]|` + escape + `)*={0,2}`)

	escapes = regexp.MustCompile(escape)
	blank   = regexp.MustCompile(`[ \t\v\f\r\n\x{a0}]`)

	// runOn is an armored envelope whose first line does not end where it should.
	runOn = regexp.MustCompile(armorBegin + `(?:[ \t]|` + escape + `)*` + base64Intro)
)

// unescape puts the characters in the place of their escapes, and nothing in that
// of line ends.
func unescape(text []byte) []byte {
	return escapes.ReplaceAllFunc(text, func(e []byte) []byte {
		switch e[len(e)-1] {
		case '/', 'f', 'F':
			return []byte("/")
		case 'b', 'B':
			return []byte("+")
		}
		if bytes.HasSuffix(bytes.ToLower(e), []byte("u003d")) {
			return []byte("=")
		}
		return nil
	})
}

// findRunOn finds armored age files whose lines have become one, or others: a
// body of JSON as it was sent to an HTTP server, or text that a program has
// filled anew.
func findRunOn(input []byte, c *collection) {
	line, counted := 1, 0
	for _, at := range runOn.FindAllIndex(input, maxFound+maxFaults+1) {
		line += bytes.Count(input[counted:at[0]], []byte("\n"))
		counted = at[0]
		f := finding{form: "armored", line: line, fault: errCutOff}
		body := input[at[0]+len(armorBegin):]
		if next := bytes.Index(body, []byte(armorBegin)); next >= 0 {
			body = body[:next]
		}
		if end := bytes.Index(body, []byte(armorEnd)); end > maxSealed {
			f.fault = errLong
		} else if end >= 0 {
			text := blank.ReplaceAll(unescape(body[:end]), nil)
			f.sealed, f.fault = slices.Concat([]byte(armorBegin+"\n"), text, []byte("\n"+armorEnd+"\n")), nil
		}
		c.add(f)
	}
}

func findBase64(input []byte, c *collection) {
	line, counted := 1, 0
	for at := 0; !c.full; {
		begin := bytes.Index(input[at:], []byte(base64Intro))
		if begin < 0 {
			return
		}
		begin += at
		// Where no "=" ends it, the next line may be another one.
		at = begin + len(base64Intro)
		end := len(input)
		if next := bytes.Index(input[at:], []byte(base64Intro)); next >= 0 {
			end = at + next
		}
		end = min(end, begin+maxSealed)
		line += bytes.Count(input[counted:begin], []byte("\n"))
		counted = begin
		f := finding{form: formBase64, line: line}
		text := bytes.Map(func(r rune) rune {
			if r == '\r' || r == '\n' {
				return -1
			}
			return r
		}, unescape(base64File.Find(input[begin:end])))
		// A cut-off end leaves an envelope that does not authenticate; that is
		// for the one who opens it to say.
		text, _, _ = bytes.Cut(text, []byte("="))
		f.sealed = make([]byte, base64.RawStdEncoding.DecodedLen(len(text)))
		n, _ := base64.RawStdEncoding.Decode(f.sealed, text)
		f.sealed = f.sealed[:n]
		c.add(f)
	}
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
