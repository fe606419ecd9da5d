// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// maxSize is the size of the largest document, in bytes. Some thousand users
// fit into it; a provider's user-data is smaller.
const maxSize = 64 << 10

// Parse reads the document of a layer and validates it as [Policy.Validate]
// does. The errors are [Errors], each with file's name and, in all but a few
// errors of the document as a whole, with line and column. Parse fills in no
// defaults.
//
// In a vendor's or instance's layer of a version newer than [Version] unknown
// keys are no error: they are left out and listed in the policy's Notices.
func Parse(layer Layer, file string, data []byte) (*Policy, error) {
	p, errs := parse(layer, data)
	for _, es := range []Errors{errs, p.Notices} {
		for _, e := range es {
			e.File = file
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	p.File = file
	return p, nil
}

func parse(layer Layer, data []byte) (*Policy, Errors) {
	p := new(Policy)
	root, e := document(data)
	if e != nil {
		return p, Errors{e}
	}
	w := walker{forgiving: layer != Image && newer(root), wrong: map[string]bool{}, misspelt: map[string]bool{}}
	if !w.decode(root, p) {
		return p, w.errs
	}

	// A field with the wrong shape is empty now, and what Validate has to say
	// about that is no second problem.
	var errs Errors
	for _, e := range p.Validate(layer) {
		if !within(w.wrong, e.Path) && !(e.Rule == ErrRequired && w.misspelt[e.Path]) {
			errs = append(errs, e)
		}
	}
	locate(root, errs)
	errs = append(w.errs, errs...)
	errs.sort()
	p.Notices = w.notices
	return p, errs
}

// within reports whether path or a field that it is a part of is in paths.
func within(paths map[string]bool, path string) bool {
	for {
		if paths[path] {
			return true
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return false
		}
		path = path[:i]
	}
}

// newer reports whether the document says that it is of a version to come.
func newer(root *yaml.Node) bool {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "version" {
			n, ok := wholeNumber(root.Content[i+1])
			return ok && n > Version
		}
	}
	return false
}

// document returns the one mapping that data consists of.
func document(data []byte) (*yaml.Node, *Error) {
	if e := checkText(data); e != nil {
		return nil, e
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	if err := decode(dec, &doc); err == io.EOF {
		return nil, &Error{Rule: ErrEmpty, Fix: emptyFix}
	} else if err != nil {
		return nil, syntaxError(err, data)
	}
	if err := decode(dec, &more); err == nil {
		return nil, &Error{Line: more.Line, Column: more.Column, Rule: ErrDocuments, Fix: `leave out what follows the first one, and its "---"`}
	} else if err != io.EOF {
		return nil, syntaxError(err, data)
	}
	root := doc.Content[0]
	switch {
	case root.Kind == yaml.MappingNode:
		return root, nil
	case root.ShortTag() == "!!null":
		return nil, &Error{Rule: ErrEmpty, Fix: emptyFix}
	}
	return nil, &Error{Line: root.Line, Column: root.Column, Rule: ErrType, Fix: `write keys and values, as in "version: 1"`}
}

const (
	emptyFix  = `begin with the line "version: 1"`
	cutFix    = "it was cut short; write it again"
	anchorFix = "write the value out where it is used"
)

// decode is dec.Decode for documents that nobody vouches for: a fault of the
// YAML package must not take the boot of a machine with it.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("cannot be read")
		}
	}()
	return dec.Decode(n)
}

// checkText refuses what is no text, or not the text that was written.
func checkText(data []byte) *Error {
	if len(data) > maxSize {
		return &Error{Rule: ErrTooLarge, Fix: "name fewer users in one layer"}
	}
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		return &Error{Line: 1, Column: 1, Rule: ErrBOM, Fix: "save it as UTF-8 without BOM"}
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			line, column := position(data, i)
			return &Error{Line: line, Column: column, Rule: ErrNotUTF8, Fix: "save it as UTF-8"}
		case unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r':
			line, column := position(data, i)
			return &Error{Line: line, Column: column, Rule: ErrControl, Fix: "leave it out"}
		}
		i += n
	}
	if bytes.HasPrefix(data, []byte(firstLine)) && !bytes.HasSuffix(bytes.TrimRight(data, "\n"), []byte("\n"+lastLine)) {
		line, column := position(data, len(data))
		return &Error{Line: line, Column: column, Rule: ErrCut, Fix: cutFix}
	}
	for i, line := range strings.Split(string(data), "\n") {
		text := strings.TrimLeft(line, " \t")
		if indent := line[:len(line)-len(text)]; strings.Contains(indent, "\t") && strings.TrimSpace(text) != "" {
			return &Error{Line: i + 1, Column: strings.Index(indent, "\t") + 1, Rule: ErrTab, Fix: "use spaces"}
		}
	}
	return nil
}

// position returns line and column of a byte, both from 1. A column is a
// character, as the YAML package counts.
func position(data []byte, i int) (line, column int) {
	before := data[:i]
	start := bytes.LastIndexByte(before, '\n') + 1
	return 1 + bytes.Count(before, []byte("\n")), 1 + utf8.RuneCount(before[start:])
}

// syntaxError makes an Error of the YAML package's.
func syntaxError(err error, data []byte) *Error {
	problem := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(problem, "line "); ok {
		_, problem, _ = strings.Cut(rest, ": ")
	}
	e := &Error{Fix: "look for a missing colon, quote or bracket, or a wrong indent, here or in the line before"}
	at, ended, reads := YAMLEnd(data)
	if reads {
		at = len(bytes.TrimRight(data, " \r\n"))
	}
	switch {
	case strings.HasPrefix(problem, "unknown anchor"):
		// The only problem that repeats a part of the document.
		e.Rule, e.Fix = ErrAnchor, anchorFix
	case ended:
		e.Rule = fmt.Errorf("%w: %s", ErrCut, problem)
		e.Fix = "look for a quote or bracket that is never closed or a missing colon, or write it again if it was cut short"
	default:
		e.Rule = fmt.Errorf("%w: %s", ErrSyntax, problem)
	}
	e.Line, e.Column = position(data, at)
	return e
}
