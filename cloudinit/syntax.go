// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// syntaxError says what is wrong with a document that the YAML package does not read,
// and where. The line in the package's own errors is where the list or mapping around
// the problem begins, or the one before.
func syntaxError(doc []byte) *Error {
	at, _, _ := policy.YAMLEnd(doc)
	line, column := position(doc, at)
	// The blanks around the place.
	from := len(bytes.TrimRight(doc[:at], " \t"))
	blanks := doc[from:]
	blanks = blanks[:len(blanks)-len(bytes.TrimLeft(blanks, " \t"))]
	fix := syntaxFix(doc, from)
	if i := bytes.IndexByte(blanks, '\t'); i >= 0 && fix != fixTabFirst {
		line, column := position(doc, from+i)
		return &Error{Line: line, Column: column, Rule: ErrTab, Fix: fixTab}
	}
	e := &Error{Line: line, Column: column, Rule: ErrSyntax, Fix: fix}
	if fix != fixSyntax {
		return e
	}
	for _, cause := range []func([]byte, int) *Error{templateLine, oddBlank, tabInIndentation} {
		if found := cause(doc, at); found != nil {
			return found
		}
	}
	return e
}

const (
	fixSyntax    = "cloud-init would not read it either: correct it there, or just before"
	fixTab       = "use spaces"
	fixBlank     = "type plain spaces: text that is copied from a web page or a word processor has others"
	fixTerraform = "render it first, and merge the result: templatefile() in Terraform, and output -raw prints it"
	fixJinja     = `a document that cloud-init is to fill in begins with the line "## template: jinja"`
	fixERB       = "render it first, and merge the result"
)

// Lines of templates as people write them.
var templateLines = []struct {
	line *regexp.Regexp
	name string
	fix  string
}{
	{regexp.MustCompile(`%\{~?\s*(for|if|else|endfor|endif)\b[^}]*\}`), "Terraform", fixTerraform},
	{regexp.MustCompile(`\{[%#][-+]?\s.*[%#]\}`), "jinja", fixJinja},
	{regexp.MustCompile(`<%[-=]?\s.*%>`), "ERB", fixERB},
}

// templateLine finds a line of a template at the place where YAML ends, or next to it.
func templateLine(doc []byte, at int) *Error {
	start := bytes.LastIndexByte(doc[:at], '\n') + 1
	start = bytes.LastIndexByte(doc[:max(start-1, 0)], '\n') + 1
	for range 3 {
		text, _, more := bytes.Cut(doc[start:], []byte("\n"))
		for _, t := range templateLines {
			if found := t.line.FindIndex(text); found != nil {
				line, column := position(doc, start+found[0])
				return &Error{Line: line, Column: column, Value: string(text[found[0]:found[1]]), Rule: fmt.Errorf("%w (%s)", ErrTemplate, t.name), Fix: t.fix}
			}
		}
		if !more {
			return nil
		}
		start += len(text) + 1
	}
	return nil
}

// isOddBlank reports whether a character looks like a space, or like nothing, and is
// neither for YAML.
func isOddBlank(r rune) bool {
	switch r {
	case '\u200b', '\u200c', '\u200d', '\u2060', '\ufeff', '\u00ad', '\u180e':
		return true
	}
	return r > 0x7f && unicode.Is(unicode.Zs, r)
}

// oddBlank finds such a character where the document is YAML, or is so for longer, with
// a space in its place: one in the indentation of a line if there is any.
func oddBlank(doc []byte, at int) *Error {
	if !bytes.ContainsFunc(doc, isOddBlank) || !better(doc, at, func(r rune) rune {
		switch {
		case !isOddBlank(r):
			return r
		case unicode.Is(unicode.Zs, r):
			return ' '
		}
		return -1
	}) {
		return nil
	}
	i := 0
	for line := range bytes.Lines(doc) {
		margin := line[:len(line)-len(bytes.TrimLeftFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || isOddBlank(r) }))]
		if j := bytes.IndexFunc(margin, isOddBlank); j >= 0 {
			return blankError(doc, i+j)
		}
		i += len(line)
	}
	return blankError(doc, bytes.IndexFunc(doc, isOddBlank))
}

func blankError(doc []byte, at int) *Error {
	line, column := position(doc, at)
	r, _ := utf8.DecodeRune(doc[at:])
	return &Error{Line: line, Column: column, Value: fmt.Sprintf("%U", r), Rule: ErrBlank, Fix: fixBlank}
}

// better reports whether a document is read, or for more of its lines, with other
// characters.
func better(doc []byte, at int, change func(rune) rune) bool {
	changed := bytes.Map(change, doc)
	now, _, reads := policy.YAMLEnd(changed)
	return reads || bytes.Count(changed[:now], []byte("\n")) > bytes.Count(doc[:at], []byte("\n"))
}

// tabInIndentation finds a tab at the beginning of a line at the place where YAML ends,
// or next to it, with which the text before it ends.
func tabInIndentation(doc []byte, at int) *Error {
	start := bytes.LastIndexByte(doc[:at], '\n') + 1
	start = bytes.LastIndexByte(doc[:max(start-1, 0)], '\n') + 1
	for range 4 {
		text, _, more := bytes.Cut(doc[start:], []byte("\n"))
		margin := text[:len(text)-len(bytes.TrimLeft(text, " \t"))]
		if i := bytes.IndexByte(margin, '\t'); i >= 0 && withoutTabs(doc, at) {
			line, column := position(doc, start+i)
			return &Error{Line: line, Column: column, Rule: ErrTab, Fix: fixTab + ", at least as many as the lines of the text before it begin with"}
		}
		if !more {
			return nil
		}
		start += len(text) + 1
	}
	return nil
}

// withoutTabs reports whether a document is read, or for more of its lines, with spaces
// for the tabs that its lines begin with.
func withoutTabs(doc []byte, at int) bool {
	var b bytes.Buffer
	indent := 0
	for line := range bytes.Lines(doc) {
		text := bytes.TrimLeft(line, " \t")
		margin := line[:len(line)-len(text)]
		if len(bytes.TrimSpace(text)) > 0 {
			if bytes.IndexByte(margin, '\t') < 0 {
				indent = len(margin)
			}
			margin = bytes.Repeat([]byte(" "), indent)
		}
		b.Write(margin)
		b.Write(text)
	}
	now, _, reads := policy.YAMLEnd(b.Bytes())
	return reads || bytes.Count(b.Bytes()[:now], []byte("\n")) > bytes.Count(doc[:at], []byte("\n"))
}

// headerError says what a document without a first line that cloud-init knows is.
func headerError(doc []byte) *Error {
	text := bytes.TrimLeft(doc, " \t\r\n\v\f")
	line, _ := position(doc, len(doc)-len(text))
	e := &Error{Line: line, Column: 1, Rule: ErrHeader, Fix: headerFix}
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case inBase64(text):
		e.Rule, e.Fix = ErrBase64, "decode it first: base64 -d; in Terraform, leave out base64encode() and set base64_encode = false and gzip = false in cloudinit_config"
	case bytes.HasPrefix(first, []byte("<<")):
		e.Fix = "this is Terraform's way to show a text: terraform output -raw prints the document itself"
	case bytes.ContainsFunc(first[:min(len(first), 8)], isOddBlank):
		return blankError(doc, bytes.IndexFunc(doc, isOddBlank))
	default:
		for _, t := range templateLines {
			if t.line.Match(first) {
				e.Value, e.Rule, e.Fix = string(first), fmt.Errorf("%w (%s)", ErrTemplate, t.name), t.fix
			}
		}
	}
	return e
}

// inBase64 reports whether a text is base64 of a document that cloud-init knows.
func inBase64(text []byte) bool {
	coded := strings.TrimRight(string(bytes.Join(bytes.Fields(text), nil)), "=")
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if plain, err := encoding.DecodeString(coded); err == nil {
			_, e := kindOf(plain)
			return e == nil
		}
	}
	return false
}

// tabFirst is the mark of a block of text whose first line begins with a tab, behind
// its indentation.
var tabFirst = regexp.MustCompile(`[|>][-+]?[ \r]*\n +\t`)

const fixTabFirst = `a text that begins with a tab needs its indentation ahead, as "|2" is two more than its key's`

// syntaxFix says what to do about a place that the YAML package does not read. There
// are two kinds that cloud-init's does.
func syntaxFix(doc []byte, at int) string {
	start := bytes.LastIndexByte(doc[:at], '\n') + 1
	line, _, _ := bytes.Cut(doc[start:], []byte("\n"))
	before := bytes.LastIndexByte(doc[:max(start-1, 0)], '\n') + 1
	near := bytes.SplitAfterN(doc[before:], []byte("\n"), 4) // the line before, this one, the next
	switch {
	case bytes.Contains(line, []byte(`\/`)):
		return `write / for \/, an escape of JSON's`
	case tabFirst.Match(bytes.Join(near[:min(3, len(near))], nil)):
		return fixTabFirst
	}
	return fixSyntax
}
