// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// errElsewhere means that an entry cannot be put into the text of a document,
// and has to stand beside it.
var errElsewhere = errors.New("cannot be added to in place")

// splice puts an entry into the text of a cloud-config. It tries the places
// where a person would put it, and takes the first at which the document says
// the same as before besides what is added.
//
// The document has no clashes. The error is [errElsewhere].
func splice(doc string, e entry, keep bool) (string, error) {
	if !e.any() {
		return doc, nil
	}
	t, problem := parse([]byte(doc))
	if problem != nil {
		return "", errElsewhere
	}
	f, problem := t.get(e.key)
	if problem != nil || f != nil && (f.elsewhere || f.value.Anchor != "" || f.value.Kind != yaml.SequenceNode && len(e.scalars) == 0) {
		return "", errElsewhere
	}
	if f != nil {
		keep = false // their list says who is there
	}
	s := splicer{doc: doc, lines: lineStarts(doc), entry: e, keep: keep, newline: "\n"}
	if i := strings.IndexByte(doc, '\n'); i > 0 && doc[i-1] == '\r' {
		s.newline = "\r\n"
	}
	var tries []insertion
	switch {
	case f == nil:
		tries = s.newKey(t)
	case len(e.scalars) > 0:
		return doc, nil // it says the same already
	case f.value.Style&yaml.FlowStyle != 0:
		tries = s.flowItems(f)
	default:
		tries = s.blockItems(t, f)
	}
	for _, try := range tries {
		if try.at < 0 {
			continue
		}
		out := doc[:try.at] + try.text + doc[try.at:]
		if s.agrees(t, out) {
			return out, nil
		}
	}
	return "", errElsewhere
}

type splicer struct {
	doc     string
	lines   []int // where each begins
	entry   entry
	keep    bool
	newline string

	// Where offset was last: many columns of one line would be counted again and
	// again.
	line0, column0, at0 int
}

type insertion struct {
	at   int
	text string
}

// newKey is for a document without the key: at its end, or ahead of its first
// key.
func (s *splicer) newKey(t theirs) []insertion {
	if t.root != nil && t.root.Style&yaml.FlowStyle != 0 {
		return s.newPair(t.root)
	}
	margin := ""
	if t.root != nil {
		margin = strings.Repeat(" ", t.root.Column-1)
	}
	text := s.entry.block(margin, s.keep)
	end := s.end(t)
	tries := []insertion{s.line(end, s.newline+text)}
	if t.root != nil {
		tries = append(tries, s.line(s.offset(t.root.Line, 1), text))
	}
	return tries
}

// newPair is for a document in braces.
func (s *splicer) newPair(root *yaml.Node) []insertion {
	open := s.offset(root.Line, root.Column)
	end, last := closing(s.doc, max(open, 0))
	var text string
	if len(s.entry.scalars) > 0 {
		var pairs []string
		for _, p := range s.entry.scalars {
			value := p.value
			if !word(value) {
				value = quoteJSON(value)
			}
			pairs = append(pairs, quoteJSON(p.key)+": "+value)
		}
		text = strings.Join(pairs, ", ")
	} else {
		text = quoteJSON(s.entry.key) + ": [" + s.entry.flow(s.keep) + "]"
	}
	return []insertion{{end, separated(last, text)}}
}

// flowItems is for a list in brackets.
func (s *splicer) flowItems(f *found) []insertion {
	open := s.offset(f.value.Line, f.value.Column)
	if open < 0 || open >= len(s.doc) {
		return nil
	}
	// An anchor or a tag comes first.
	if i := strings.IndexByte(s.doc[open:], '['); i >= 0 {
		open += i
	}
	end, last := closing(s.doc, open)
	return []insertion{{end, separated(last, s.entry.flow(false))}}
}

// separated puts a comma where one is needed.
func separated(last byte, text string) string {
	switch last {
	case 0:
		return text
	case ',':
		return " " + text
	}
	return ", " + text
}

// blockItems is for a list with its items in lines: after the last of them.
func (s *splicer) blockItems(t theirs, f *found) []insertion {
	if len(f.value.Content) == 0 {
		return nil
	}
	// The position of a list is that of its first dash, but for an anchor or a
	// tag.
	dash := s.dash(f.value.Content[0])
	if dash < 0 {
		return nil
	}
	margin := strings.Repeat(" ", dash)
	text := s.entry.list(margin, false)
	end := s.end(t)
	for key := range pairs(t.root) {
		if key.Line > f.key.Line {
			end = s.offset(key.Line, 1)
			break
		}
	}
	return []insertion{s.line(s.back(end, dash), text), s.line(end, text)}
}

// dash returns the column, from 0, of the dash ahead of an item. An item may
// begin in the line after its dash.
func (s *splicer) dash(first *yaml.Node) int {
	for line := first.Line; line > 0 && line > first.Line-64; line-- {
		start := s.offset(line, 1)
		if start < 0 {
			return -1
		}
		text := s.doc[start:]
		blank := len(text) - len(strings.TrimLeft(text, " "))
		if strings.HasPrefix(text[blank:], "-") {
			return blank
		}
		if first.Line-line > 0 && strings.TrimSpace(strings.SplitN(text, "\n", 2)[0]) != "" && !strings.HasPrefix(text[blank:], "#") {
			return -1
		}
	}
	return -1
}

// back goes from the end of a list back over what does not belong to it: blank
// lines, and comments of the key that follows.
func (s *splicer) back(end, dash int) int {
	for end > 0 {
		start := strings.LastIndexByte(s.doc[:end-1], '\n') + 1
		line := strings.TrimRight(s.doc[start:end], "\r\n")
		text := strings.TrimLeft(line, " \t")
		if strings.TrimSpace(text) != "" && !(text[0] == '#' && (len(line)-len(text) < dash || dash == 0)) {
			return end
		}
		if s.doc[end-1] != '\n' {
			return end
		}
		end = start
	}
	return end
}

// end returns where the text of the only document ends: at a mark of YAML's, or
// with the text.
func (s *splicer) end(t theirs) int {
	from := 1
	if t.root != nil {
		from = t.root.Line
	}
	for line := from + 1; line <= len(s.lines); line++ {
		text := s.doc[s.lines[line-1]:]
		for _, mark := range []string{"...", "---"} {
			if rest, ok := strings.CutPrefix(text, mark); ok && (mark == "..." || t.root != nil) && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n")) {
				return s.lines[line-1]
			}
		}
	}
	return len(s.doc)
}

// line makes an insertion of whole lines.
func (s *splicer) line(at int, text string) insertion {
	if at < 0 || at > len(s.doc) {
		return insertion{at: -1}
	}
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\n", s.newline)
	if at > 0 && s.doc[at-1] != '\n' {
		text = s.newline + text
	}
	return insertion{at, text}
}

// offset returns where a line and column are, -1 if nowhere.
func (s *splicer) offset(line, column int) int {
	if line < 1 || line > len(s.lines) {
		return -1
	}
	at, from := s.lines[line-1], 1
	if line == s.line0 && column >= s.column0 {
		at, from = s.at0, s.column0
	}
	for range column - from {
		if at >= len(s.doc) {
			return -1
		}
		_, n := utf8.DecodeRuneInString(s.doc[at:])
		at += n
	}
	s.line0, s.column0, s.at0 = line, column, at
	return at
}

// lineStarts counts lines as the YAML package does, to which more than the
// newline ends one.
func lineStarts(doc string) []int {
	starts := []int{0}
	for i := 0; i < len(doc); {
		r, n := utf8.DecodeRuneInString(doc[i:])
		i += n
		switch r {
		case '\r':
			if i < len(doc) && doc[i] == '\n' {
				i++
			}
			starts = append(starts, i)
		case '\n', '\u0085', '\u2028', '\u2029':
			starts = append(starts, i)
		}
	}
	return starts
}

// agrees reports whether out says what the document said, and what the entry
// says.
func (s *splicer) agrees(before theirs, out string) bool {
	after, e := parse([]byte(out))
	if e != nil || after.root == nil {
		return false
	}
	var rest, old []*yaml.Node
	if before.root != nil {
		old = before.root.Content
		if !sameShape(before.root, after.root, false) {
			return false
		}
	}
	added := 0
	for i, j := 0, 0; j < len(after.root.Content); j += 2 {
		key, value := after.root.Content[j], after.root.Content[j+1]
		switch {
		case i < len(old) && same(old[i], key) && key.Value == s.entry.key && len(s.entry.scalars) == 0:
			was := old[i+1]
			if !sameShape(was, value, false) || len(value.Content) < len(was.Content) || !allSame(was.Content, value.Content[:len(was.Content)]) {
				return false
			}
			rest = value.Content[len(was.Content):]
			added++
			i += 2
		case i < len(old) && same(old[i], key) && same(old[i+1], value):
			i += 2
		case key.Value == s.entry.key && value.Kind == yaml.SequenceNode:
			rest = value.Content
			added++
		case slices.ContainsFunc(s.entry.scalars, func(p pair) bool { return p.key == key.Value && p.value == value.Value }):
			added++
		default:
			return false
		}
		if i > len(old) {
			return false
		}
	}
	if count(after.root.Content, s.entry.key) != 1 || lost(old, after.root.Content, s.entry) {
		return false
	}
	if n := len(s.entry.scalars); n > 0 {
		return added == n
	}
	return added == 1 && s.says(rest)
}

// lost reports whether a key of the document is not there any more.
func lost(old, now []*yaml.Node, e entry) bool {
	extra := len(now) - len(old)
	switch {
	case len(e.scalars) > 0:
		return extra != 2*len(e.scalars)
	case count(old, e.key) == 0:
		return extra != 2
	}
	return extra != 0
}

func count(content []*yaml.Node, key string) int {
	n := 0
	for i := 0; i+1 < len(content); i += 2 {
		if content[i].Value == key {
			n++
		}
	}
	return n
}

// says compares items with those that the entry has by itself.
func (s *splicer) says(items []*yaml.Node) bool {
	var want []any
	if err := yaml.Unmarshal([]byte(s.entry.list("", s.keep)), &want); err != nil {
		return false
	}
	got := make([]any, len(items))
	for i, n := range items {
		if n.Decode(&got[i]) != nil {
			return false
		}
	}
	return reflect.DeepEqual(got, want)
}

// same compares nodes without their places and comments.
func same(a, b *yaml.Node) bool {
	return sameShape(a, b, true) && allSame(a.Content, b.Content)
}

func sameShape(a, b *yaml.Node, size bool) bool {
	return a.Kind == b.Kind && a.Tag == b.Tag && a.Value == b.Value && a.Anchor == b.Anchor && a.Style == b.Style &&
		(a.Alias == nil) == (b.Alias == nil) && (!size || len(a.Content) == len(b.Content))
}

func allSame(a, b []*yaml.Node) bool {
	return slices.EqualFunc(a, b, same)
}
