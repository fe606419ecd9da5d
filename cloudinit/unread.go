// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// unread finds what the YAML package reads and PyYAML's safe_load, by which
// cloud-init reads, does not: for one such place cloud-init drops the whole
// document, and with it what was merged in. Tags are for [unknownTag].
func unread(doc string, root *yaml.Node) *Error {
	v := values{anchors: make(map[string]bool)}
	if e := v.unread(root); e != nil {
		return e
	}
	if !strings.Contains(doc, "\t") && !strings.Contains(doc, `\'`) {
		return nil
	}
	return unreadText(doc, root)
}

// values walks over a document in the order of its text.
type values struct {
	anchors map[string]bool // that it has met
}

func (v values) unread(n *yaml.Node) *Error {
	if n.Anchor != "" {
		if v.anchors[n.Anchor] {
			return at(n, "", "&"+n.Anchor, ErrUnread, "give each anchor a name of its own")
		}
		v.anchors[n.Anchor] = true
	}
	if n.Kind == yaml.ScalarNode {
		return unreadValue(n)
	}
	if n.Kind != yaml.MappingNode {
		for _, c := range n.Content {
			if e := v.unread(c); e != nil {
				return e
			}
		}
		return nil
	}
	for key, value := range pairs(n) {
		if e := unreadKey(key, value); e != nil {
			return e
		}
		for _, c := range []*yaml.Node{key, value} {
			// As keys they have a meaning of their own.
			if c == key && (c.Value == "=" || c.ShortTag() == "!!merge") {
				continue
			}
			if e := v.unread(c); e != nil {
				return e
			}
		}
	}
	return nil
}

// unreadKey finds keys that are no text, as {{ name }} is one without quotes, and
// merge keys without anything to merge.
func unreadKey(key, value *yaml.Node) *Error {
	if resolve(key).Kind != yaml.ScalarNode {
		return at(key, "", "", ErrUnread,
			`put quotes around it, as in "{{ name }}"; a document that cloud-init is to fill in begins with the line "## template: jinja"`)
	}
	if key.ShortTag() != "!!merge" {
		return nil
	}
	from := []*yaml.Node{resolve(value)}
	if from[0].Kind == yaml.SequenceNode {
		from = from[0].Content
	}
	if slices.ContainsFunc(from, func(n *yaml.Node) bool { return resolve(n).Kind != yaml.MappingNode }) {
		return at(value, "", "", ErrUnread, `"<<" takes keys and values, or a list of such`)
	}
	return nil
}

// dateLike is a plain value that PyYAML makes a date of, with the time of day and
// the zone if there are any.
var dateLike = regexp.MustCompile(`^(\d{4})-(\d\d?)-(\d\d?)(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.\d*)?(?:[ \t]*(?:Z|[-+](\d\d?)(?::?(\d\d))?))?)?$`)

// unreadValue finds scalars that PyYAML cannot make a value of.
func unreadValue(n *yaml.Node) *Error {
	const quotes = "put it in quotes"
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		if plain := (&yaml.Node{Kind: yaml.ScalarNode, Value: n.Value}); !fitsTag(n.ShortTag(), plain.ShortTag(), strings.ToLower(n.Value)) {
			return at(n, "", n.Value, ErrUnread, "leave out the "+n.ShortTag())
		}
	case n.Style == 0 && (n.Value == "=" || n.ShortTag() == "!!merge"):
		return at(n, "", n.Value, ErrUnread, quotes)
	case n.Style == 0 && strings.IndexFunc(n.Value, isOddBlank) == 0:
		r, _ := utf8.DecodeRuneInString(n.Value)
		return at(n, "", fmt.Sprintf("%U", r), ErrBlank, fixBlank)
	case n.Style == 0:
		if m := dateLike.FindStringSubmatch(n.Value); m != nil && !isDate(m[1:]) {
			return at(n, "", n.Value, ErrUnread, quotes)
		}
	}
	return nil
}

// fitsTag reports whether a value, which is of another tag by itself, may have one
// that is written before it.
func fitsTag(tag, itself, value string) bool {
	switch tag {
	case "!!int", "!!timestamp":
		return itself == tag
	case "!!float":
		return itself == tag || itself == "!!int"
	case "!!bool":
		return slices.Contains([]string{"yes", "no", "true", "false", "on", "off"}, value)
	case "!!merge":
		return false
	}
	return true
}

func isDate(text []string) bool {
	n := make([]int, len(text))
	for i, t := range text {
		n[i], _ = strconv.Atoi(t) // what is not there is 0
	}
	day := time.Date(n[0], time.Month(n[1]), n[2], 0, 0, 0, 0, time.UTC)
	return n[0] > 0 && int(day.Month()) == n[1] && day.Day() == n[2] && n[3] < 24 && n[4] < 60 && n[5] < 60 && n[6]*60+n[7] < 24*60
}

// unreadText finds what only the text shows: tabs outside of quotes, blocks of
// text and comments, and the escape \' in double quotes.
func unreadText(doc string, root *yaml.Node) *Error {
	s := splicer{doc: doc, lines: lineStarts(doc)}
	bad := func(offset int, value string, rule error, fix string) *Error {
		line, column := position([]byte(doc), offset)
		return &Error{Line: line, Column: column, Value: value, Rule: rule, Fix: fix}
	}
	pos := 0
	for text := range texts(root) {
		from, to := s.span(text)
		if from < pos {
			continue // which no text does
		}
		if i := tabIn(doc, pos, from); i >= 0 {
			return bad(i, "", ErrTab, "use spaces")
		}
		if text.Style&yaml.DoubleQuotedStyle != 0 {
			for i := from; i < to-1; i++ {
				if doc[i] == '\\' {
					if i++; doc[i] == '\'' {
						return bad(i-1, `\'`, ErrUnread, "write the ' alone")
					}
				}
			}
		}
		pos = to
	}
	if i := tabIn(doc, pos, len(doc)); i >= 0 {
		return bad(i, "", ErrTab, "use spaces")
	}
	return nil
}

// texts yields the scalars in whose text tabs may stand, in order.
func texts(n *yaml.Node) func(yield func(*yaml.Node) bool) {
	const marked = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return func(yield func(*yaml.Node) bool) {
		var walk func(n *yaml.Node) bool
		walk = func(n *yaml.Node) bool {
			if n.Kind == yaml.ScalarNode && n.Style&marked != 0 {
				return yield(n)
			}
			return !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return !walk(c) })
		}
		walk(n)
	}
}

// tabIn returns where a tab is from an offset to another, but for comments; -1 for
// nowhere.
func tabIn(doc string, from, to int) int {
	for i := from; i < to; i++ {
		switch {
		case doc[i] == '\t':
			return i
		case doc[i] == '#' && (i == 0 || strings.IndexByte(" \r\n", doc[i-1]) >= 0):
			for i+1 < to && doc[i+1] != '\n' {
				i++
			}
		}
	}
	return -1
}

// span returns where the text of a scalar in quotes begins and ends, or of a block of
// text without its first line; twice -1 if that cannot be said.
func (s *splicer) span(n *yaml.Node) (from, to int) {
	start := s.offset(n.Line, n.Column)
	if start < 0 || start >= len(s.doc) {
		return -1, -1
	}
	// An anchor or a tag comes first.
	mark := func(characters string) int { return start + strings.IndexAny(s.doc[start:], characters) }
	switch {
	case n.Style&yaml.DoubleQuotedStyle != 0:
		from = mark(`"`)
		for to = from + 1; to < len(s.doc) && s.doc[to] != '"'; to++ {
			if s.doc[to] == '\\' {
				to++
			}
		}
		to++
	case n.Style&yaml.SingleQuotedStyle != 0:
		from = mark(`'`)
		for to = from + 1; to < len(s.doc) && (s.doc[to] != '\'' || strings.HasPrefix(s.doc[to+1:], "'")); to++ {
			if s.doc[to] == '\'' {
				to++
			}
		}
		to++
	default:
		from = mark("|>")
		if from < start {
			return -1, -1
		}
		header, _, _ := strings.Cut(s.doc[from:], "\n")
		from = min(from+len(header)+1, len(s.doc))
		indent := 0
		if header, _, _ = strings.Cut(header, " "); strings.ContainsAny(header, "123456789") {
			indent = 1 // the first line may be more indented than the others
		}
		to = s.blockEnd(from, indent)
	}
	if from < start || to > len(s.doc) {
		return -1, -1
	}
	return from, to
}

// blockEnd returns where a block of text ends whose first line is at an offset: at
// the first line that is less indented, than the first one where indent is 0.
func (s *splicer) blockEnd(at, indent int) int {
	for at < len(s.doc) {
		line, _, _ := strings.Cut(s.doc[at:], "\n")
		blank := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case strings.TrimSpace(line) == "":
		case indent == 0 && blank == 0:
			return at // a block without a line, or at the margin of a document that is one
		case indent == 0:
			indent = blank
		case blank < indent:
			return at
		}
		at = min(at+len(line)+1, len(s.doc))
	}
	return at
}
