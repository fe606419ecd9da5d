// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// A walker moves a YAML tree into a policy and finds every place where it does
// not fit.
type walker struct {
	forgiving     bool // unknown keys are notices
	errs, notices Errors
	wrong         map[string]bool // the paths that errs are about
	misspelt      map[string]bool // the paths that were most likely meant by unknown keys
}

// decode reports whether it got past the root.
func (w *walker) decode(root *yaml.Node, p *Policy) bool {
	if !w.plain(root, "") {
		return false
	}
	w.fields(root, "", reflect.ValueOf(p).Elem())
	return true
}

func (w *walker) fail(n *yaml.Node, path, value string, rule error, fix string) {
	w.errs = append(w.errs, &Error{Path: path, Line: n.Line, Column: n.Column, Value: value, Rule: rule, Fix: fix})
	w.wrong[path] = true
}

// plain refuses the parts of YAML that a policy does not use.
func (w *walker) plain(n *yaml.Node, path string) bool {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		w.fail(n, path, "", ErrAnchor, anchorFix)
	case n.Style&yaml.TaggedStyle != 0:
		w.fail(n, path, "", ErrTag, "leave the tag out")
	default:
		return true
	}
	return false
}

func (w *walker) value(n *yaml.Node, path string, v reflect.Value) {
	if !w.plain(n, path) {
		return
	}
	switch v.Kind() {
	case reflect.Struct, reflect.Map:
		if n.Kind != yaml.MappingNode {
			w.fail(n, path, "", ErrType, `write keys and values, as in "key: value"`)
			return
		}
		if v.Kind() == reflect.Map {
			w.entries(n, path, v)
		} else {
			w.fields(n, path, v)
		}
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			w.fail(n, path, "", ErrType, `write a list, as in "[a, b]"`)
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
		for i, item := range n.Content {
			w.value(item, at(path, i), v.Index(i))
		}
	case reflect.Int:
		i, ok := wholeNumber(n)
		if !ok {
			w.fail(n, path, shown(path, n), ErrType, "write a whole number in decimal, without quotes")
			return
		}
		if i == 0 {
			// Zero stands for an absent key from here on.
			rule := ErrRange
			if path == "version" {
				rule = ErrVersion
			}
			w.fail(n, path, "0", rule, "write 1 or more")
			return
		}
		v.SetInt(int64(i))
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.Value != "true" && n.Value != "false" || n.ShortTag() != "!!bool" {
			w.fail(n, path, shown(path, n), ErrType, "write true or false, without quotes")
			return
		}
		v.SetBool(n.Value == "true")
	case reflect.String:
		s, ok := w.text(n, path)
		if ok {
			v.SetString(s)
		}
	}
}

// text returns a scalar that every reader of YAML takes for a string.
func (w *walker) text(n *yaml.Node, path string) (string, bool) {
	switch {
	case n.Kind != yaml.ScalarNode:
		w.fail(n, path, "", ErrType, "write a single value")
	case n.ShortTag() == "!!null", n.ShortTag() == "!!str" && n.Value == "":
		w.fail(n, path, "", ErrEmptyValue, "write a value, or leave the key out")
	case n.ShortTag() != "!!str":
		w.fail(n, path, shown(path, n), ErrType, "write text, in quotes where it looks like a number, a date, true or false")
	default:
		return n.Value, true
	}
	return "", false
}

// fields fills a struct by the names in its yaml tags.
func (w *walker) fields(n *yaml.Node, path string, v reflect.Value) {
	known := keysOf(v.Type())
	w.pairs(n, path, func(key string) string { return join(path, shownName(key)) }, func(key, value *yaml.Node) {
		i := slices.Index(known, key.Value)
		if i < 0 {
			w.unknown(key, path, known)
			return
		}
		w.value(value, join(path, key.Value), v.Field(i))
	})
}

// entries fills a map. Errors do not name its keys: what stands where a name is
// expected may be the secret itself.
func (w *walker) entries(n *yaml.Node, path string, v reflect.Value) {
	v.Set(reflect.MakeMap(v.Type()))
	w.pairs(n, path, func(string) string { return path }, func(key, value *yaml.Node) {
		if !w.plain(value, path) {
			return
		}
		if s, ok := w.text(value, path); ok {
			v.SetMapIndex(reflect.ValueOf(key.Value), reflect.ValueOf(s))
		}
	})
}

// pairs calls f for each key that is a string and not there yet.
func (w *walker) pairs(n *yaml.Node, path string, pathOf func(key string) string, f func(key, value *yaml.Node)) {
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case key.ShortTag() == "!!merge":
			w.fail(key, path, "", ErrAnchor, "write the keys out")
		case !w.plain(key, path):
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" || key.Value == "":
			w.fail(key, path, "", ErrType, "write a key, in quotes where it looks like a number, true or false")
		case seen[key.Value]:
			w.fail(key, pathOf(key.Value), "", ErrDuplicateKey, "leave out one of them")
		default:
			seen[key.Value] = true
			f(key, value)
		}
	}
}

func (w *walker) unknown(key *yaml.Node, path string, known []string) {
	e := &Error{Path: join(path, shownName(key.Value)), Line: key.Line, Column: key.Column, Rule: ErrUnknownKey}
	if w.forgiving {
		e.Fix = "it is left out, since the layer is newer than this program; update the program"
		w.notices = append(w.notices, e)
		return
	}
	if near := nearest(key.Value, known); near != "" {
		e.Fix = fmt.Sprintf("did you mean %q?", near)
		w.misspelt[join(path, near)] = true
	} else {
		sorted := slices.Sorted(slices.Values(known))
		e.Fix = "known here are " + strings.Join(slices.DeleteFunc(sorted, func(s string) bool { return s == "" }), ", ")
	}
	w.errs = append(w.errs, e)
}

// keysOf returns the key of each field of a struct, "" where it has none.
func keysOf(t reflect.Type) []string {
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i], _, _ = strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if keys[i] == "-" {
			keys[i] = ""
		}
	}
	return keys
}

// wholeNumber accepts the one way to write a number that all readers of YAML
// agree upon: decimal, without leading zeros (octal to some) and underscores.
func wholeNumber(n *yaml.Node) (int, bool) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" {
		return 0, false
	}
	i, err := strconv.Atoi(n.Value)
	return i, err == nil && strconv.Itoa(i) == n.Value
}

func at(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// locate fills in where the fields of errs are. A field that is not there is
// where the one is that it is missing from.
func locate(root *yaml.Node, errs Errors) {
	if len(errs) == 0 {
		return
	}
	places := map[string]*yaml.Node{}
	index(root, "", places, 0)
	for _, e := range errs {
		path := e.Path
		for places[path] == nil {
			path = path[:max(0, strings.LastIndexAny(path, ".["))]
		}
		e.Line, e.Column = places[path].Line, places[path].Column
	}
}

// depth is how many levels of lists and mappings a policy has below its keys.
const depth = 4

func index(n *yaml.Node, path string, places map[string]*yaml.Node, level int) {
	if places[path] == nil { // the first of duplicates
		places[path] = n
	}
	if level == depth {
		return // unknown keys may go as deep as they like
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			index(n.Content[i+1], join(path, n.Content[i].Value), places, level+1)
		}
	case yaml.SequenceNode:
		for i, item := range n.Content {
			index(item, at(path, i), places, level+1)
		}
	}
}
