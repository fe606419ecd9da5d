// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"strconv"
	"strings"
)

// Envelopes also arrive inside what programs make of text: strings of JSON, HTML,
// quoted-printable, base64 in an API's answer. The page has the same rules, and a test
// compares the two. Patterns name ASCII bytes only, so that both match alike in what is
// not UTF-8.

var (
	jsonEscape  = regexp.MustCompile(`\\{1,16}(?:u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|["'/nrtbf])`)
	lineTag     = regexp.MustCompile(`</?(?:br|BR|p|P|div|DIV|li|LI|tr|TR|pre|PRE)(?:[\t\n\r /][\t\n\r -;=?-~]{0,512})?>[ \t]*\r?\n?`)
	tag         = regexp.MustCompile(`</?[a-zA-Z][\t\n\r -;=?-~]{0,512}>`)
	entity      = regexp.MustCompile(`&(?:amp;)*(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos|nbsp|plus|sol|equals|NewLine|Tab);`)
	quotedOctet = regexp.MustCompile(`=(?:[ \t]*\r?\n|[0-9a-fA-F]{2})`)
	base64Run   = regexp.MustCompile(`[A-Za-z0-9+/]{60,}(?:(?:[ \t]*\r?\n[ \t]*[A-Za-z0-9+/]{60,})+(?:[ \t]*\r?\n[ \t]*[A-Za-z0-9+/]+)?)?`)
)

var entityNames = map[string]int{
	"amp": '&', "lt": '<', "gt": '>', "quot": '"', "apos": '\'', "nbsp": 0xa0, "plus": '+', "sol": '/', "equals": '=', "NewLine": '\n', "Tab": '\t',
}

var jsonNames = map[byte]int{'"': '"', '\'': '\'', '/': '/', 'n': '\n', 'r': '\r', 't': '\t', 'b': -1, 'f': -1}

// otherBlanks are the blanks and line ends of Unicode, in UTF-8, and the no-break space of
// Latin-1. What has no width vanishes.
var otherBlanks = func() *strings.Replacer {
	var pairs []string
	for _, r := range "\u0085\u00a0\u00ad\u1680\u180e\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c\u200d\u200e\u200f" +
		"\u2028\u2029\u202f\u205f\u2060\u3000\ufeff" {
		pairs = append(pairs, string(r), plainChar(int(r)))
	}
	return strings.NewReplacer(append(pairs, "\xa0", " ")...)
}()

// plainChar returns the ASCII that stands for a code point in an envelope's text.
func plainChar(code int) string {
	switch {
	case code == '\t', code == '\n', code == '\r', code >= ' ' && code <= '~':
		return string(rune(code))
	case code == 0x85, code == 0x2028, code == 0x2029:
		return "\n"
	case code == 0xa0, code == 0x1680, code >= 0x2000 && code <= 0x200a, code == 0x202f, code == 0x205f, code == 0x3000:
		return " "
	}
	return ""
}

// plainText undoes the escapes of JSON and HTML, and makes blanks of what looks like them.
func plainText(s string) string {
	s = jsonEscape.ReplaceAllStringFunc(s, func(e string) string {
		e = strings.TrimLeft(e, `\`)
		if e[0] == 'u' || e[0] == 'x' {
			code, _ := strconv.ParseInt(e[1:], 16, 32)
			return plainChar(int(code))
		}
		return plainChar(jsonNames[e[0]])
	})
	s = withoutTags(s)
	s = entity.ReplaceAllStringFunc(s, func(e string) string {
		for e = e[1 : len(e)-1]; strings.HasPrefix(e, "amp;"); e = e[len("amp;"):] {
		}
		digits, numeric := strings.CutPrefix(e, "#")
		if !numeric {
			return plainChar(entityNames[e])
		}
		base := 10
		if digits[0] == 'x' || digits[0] == 'X' {
			digits, base = digits[1:], 16
		}
		code, _ := strconv.ParseInt(digits, base, 32)
		return plainChar(int(code))
	})
	return otherBlanks.Replace(withoutTags(s))
}

func withoutTags(s string) string {
	return tag.ReplaceAllString(lineTag.ReplaceAllString(s, "\n"), "")
}

// fromQuotedPrintable decodes RFC 2045, section 6.7.
func fromQuotedPrintable(s string) string {
	return quotedOctet.ReplaceAllStringFunc(s, func(e string) string {
		code, err := strconv.ParseUint(e[1:], 16, 8)
		if err != nil {
			return "" // a line that goes on
		}
		return string([]byte{byte(code)})
	})
}

const (
	nestedLevels = 2  // of base64 in base64
	maxNested    = 64 // that are looked into on each level
)

// findText finds the envelopes in a text as it is. If it has more of them once its escapes
// are undone, they are found there. Then come those in long base64 inside it.
func findText(input []byte, levels int) collection {
	raw := search(input)
	best, text := raw, string(input)
	plain, printed := plainText(text), plainText(fromQuotedPrintable(text))
	for _, view := range []string{plain, printed} {
		if view == text {
			continue
		}
		if c := search([]byte(view)); c.better(best) {
			best = c.withoutLines()
		}
	}
	if best.better(raw) {
		for _, f := range raw.found {
			// Bare base64 has no end mark, and may have been joined with what follows.
			if f.whole() || f.form == formBase64 && best.whole == 0 {
				best.add(f)
			}
		}
	}
	if levels == 0 {
		return best
	}
	nested := findNested(plain, levels-1)
	if printed != plain {
		if c := findNested(printed, levels-1); c.better(nested) {
			nested = c
		}
	}
	for _, f := range nested.found {
		best.add(f)
	}
	return best
}

// findNested finds the envelopes in the long base64 of a text.
func findNested(text string, levels int) collection {
	var c collection
	for _, run := range base64Run.FindAllString(text, maxNested) {
		if strings.HasPrefix(run, base64Intro) {
			continue // an envelope itself
		}
		run = strings.Map(func(r rune) rune {
			if strings.ContainsRune(" \t\r\n", r) {
				return -1
			}
			return r
		}, run)
		data := make([]byte, base64.RawStdEncoding.DecodedLen(len(run)))
		n, _ := base64.RawStdEncoding.Decode(data, []byte(run)) // the end may be cut off
		inner := findText(data[:n], levels).withoutLines()
		for _, f := range inner.found {
			c.add(f)
		}
	}
	return c
}

// better reports whether c has more envelopes than other, or more of those in bare base64.
func (c collection) better(other collection) bool {
	return c.whole > other.whole || c.whole == other.whole && c.bare > other.bare
}

// withoutLines forgets where findings begin: it is not a line of the input.
func (c collection) withoutLines() collection {
	for i := range c.found {
		c.found[i].line = 0
	}
	return c
}

// whole reports whether the finding is an age file, as far as can be told without a key. Of
// bare base64 that cannot be told: it has no end.
func (f finding) whole() bool {
	return f.fault == nil && f.form != formBase64 && bytes.HasPrefix(f.file(), []byte(binaryIntro))
}
