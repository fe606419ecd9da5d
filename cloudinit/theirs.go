// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// theirs is a cloud-config of the owner's, read.
type theirs struct {
	root *yaml.Node // nil if there is nothing but comments
}

// parse reads a cloud-config. Anchors, merge keys, whatever cloud-init takes is
// theirs to use.
func parse(doc []byte) (theirs, *Error) {
	dec := yaml.NewDecoder(bytes.NewReader(doc))
	var first, more yaml.Node
	if err := decode(dec, &first); err == io.EOF {
		return theirs{}, nil
	} else if err != nil {
		return theirs{}, syntaxError(doc)
	}
	if err := decode(dec, &more); err == nil {
		return theirs{}, &Error{Line: more.Line, Column: more.Column, Rule: ErrDocuments, Fix: `leave out what follows the first one, and its "---"`}
	} else if err != io.EOF {
		return theirs{}, syntaxError(doc)
	}
	root := first.Content[0]
	if e := unknownTag(root); e != nil {
		return theirs{}, e
	}
	switch {
	case root.Kind == yaml.MappingNode:
		if e := unread(string(doc), root); e != nil {
			return theirs{}, e
		}
		return theirs{root}, nil
	case root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null":
		return theirs{}, nil
	}
	return theirs{}, &Error{Line: root.Line, Column: root.Column, Rule: ErrType, Fix: `write keys and values, as in "packages: [git]"`}
}

// decode is dec.Decode for documents that nobody vouches for.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("cannot be read")
		}
	}()
	return dec.Decode(n)
}

// A found key of the top level. Its value may be that of an alias.
type found struct {
	key, value *yaml.Node
	elsewhere  bool // by a merge key or an alias: what is added would have to be added elsewhere
}

// get returns what the document says about a key, nil for nothing. A key that is
// there twice is an error.
func (t theirs) get(name string) (*found, *Error) {
	if t.root == nil {
		return nil, nil
	}
	var f *found
	for key, value := range pairs(t.root) {
		if key.Kind != yaml.ScalarNode || key.Value != name {
			continue
		}
		if f != nil {
			return nil, at(key, name, "", ErrTwice, fmt.Sprintf("put what both say into one; the first is in line %d", f.key.Line))
		}
		f = &found{key: key, value: resolve(value), elsewhere: value.Kind == yaml.AliasNode}
	}
	if f != nil {
		return f, nil
	}
	return lookFor(name).in(t.root), nil
}

// A finder looks for a key in mappings, and in what their merge keys bring. It
// looks into each mapping once, since a short text can name one billions of times.
type finder struct {
	name string
	seen map[*yaml.Node]*found
}

// lookFor returns a finder of a key, for which dashes are underscores.
func lookFor(name string) finder { return finder{name, make(map[*yaml.Node]*found)} }

// in returns what a mapping says about the key, nil for nothing.
func (f finder) in(m *yaml.Node) *found {
	if got, ok := f.seen[m]; ok {
		return got
	}
	f.seen[m] = nil // it may be in itself
	var got *found
	for key, value := range pairs(m) {
		if key.Kind == yaml.ScalarNode && strings.ReplaceAll(key.Value, "-", "_") == f.name {
			got = &found{key: key, value: resolve(value), elsewhere: value.Kind == yaml.AliasNode} // the last one counts
		}
	}
	for key, value := range pairs(m) {
		if key.ShortTag() != "!!merge" {
			continue
		}
		from := []*yaml.Node{resolve(value)}
		if from[0].Kind == yaml.SequenceNode {
			from = from[0].Content
		}
		for _, n := range from {
			if n = resolve(n); got == nil && n.Kind == yaml.MappingNode {
				if there := f.in(n); there != nil {
					got = &found{key: there.key, value: there.value, elsewhere: true}
				}
			}
		}
	}
	f.seen[m] = got
	return got
}

func pairs(m *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; i+1 < len(m.Content); i += 2 {
			if !yield(m.Content[i], m.Content[i+1]) {
				return
			}
		}
	}
}

// resolve follows aliases.
func resolve(n *yaml.Node) *yaml.Node {
	for i := 0; n.Kind == yaml.AliasNode && n.Alias != nil && i < 8; i++ {
		n = n.Alias
	}
	return n
}

func at(n *yaml.Node, path, value string, rule error, fix string) *Error {
	return &Error{Path: path, Line: n.Line, Column: n.Column, Value: value, Rule: rule, Fix: fix}
}

// yes are the words, in any case, that may turn something on.
var yes = []string{"true", "1", "on", "y", "yes"}

const (
	fixSameFile     = "take it out of the document, and put what it says into the policy"
	fixPasswordAuth = "leave it out: the image takes a key and a code, and no password"
)

// clashes returns where the document and s want different things, and the users
// of s that the document makes already, with the same keys.
func (s Spec) clashes(t theirs) (errs Errors, made map[string]bool) {
	made = make(map[string]bool)
	for _, check := range []func(theirs, map[string]bool) Errors{s.clashingFiles, clashingKey, s.clashingUsers, clashingPasswords, clashingModules} {
		errs = append(errs, check(t, made)...)
	}
	if s.Vendor {
		errs = append(errs, clashingMergeRules(t)...)
	}
	return errs, made
}

// list returns the items of a list of the document's, nil if it has none.
func (t theirs) list(name string) ([]*yaml.Node, Errors) {
	f, e := t.get(name)
	switch {
	case e != nil:
		return nil, Errors{e}
	case f == nil:
		return nil, nil
	case f.value.Kind == yaml.ScalarNode && f.value.ShortTag() == "!!null":
		return nil, Errors{at(f.key, name, "", ErrEmpty, "leave the key out, or write a list")}
	case f.value.Kind != yaml.SequenceNode:
		return nil, Errors{at(f.value, name, "", ErrType, `write a list, with each item in a line that begins with "- "`)}
	}
	items := make([]*yaml.Node, len(f.value.Content))
	for i, n := range f.value.Content {
		items[i] = resolve(n)
	}
	return items, nil
}

func (s Spec) clashingFiles(t theirs, _ map[string]bool) Errors {
	items, errs := t.list("write_files")
	paths := lookFor("path")
	for i, n := range items {
		if n.Kind != yaml.MappingNode {
			continue
		}
		if f := paths.in(n); f != nil && f.value.Kind == yaml.ScalarNode && path.Clean(f.value.Value) == s.File() {
			errs = append(errs, at(f.value, fmt.Sprintf("write_files[%d].path", i), f.value.Value, ErrSameFile,
				fixSameFile))
		}
	}
	return errs
}

// moduleKey is the key that cloud-init's module hands to the agent.
const moduleKey = "totp"

func clashingKey(t theirs, _ map[string]bool) Errors {
	f, e := t.get(moduleKey)
	switch {
	case e != nil:
		return Errors{e}
	case f == nil:
		return nil
	}
	return Errors{at(f.key, moduleKey, "", ErrTwoCarriers, fixSameFile)}
}

func (s Spec) clashingUsers(t theirs, made map[string]bool) Errors {
	items, errs := t.list("users")
	names, sshKeys := lookFor("name"), lookFor("ssh_authorized_keys")
	for i, n := range items {
		name, keys := account(n, names, sshKeys)
		if name == nil {
			continue
		}
		for _, u := range s.Users {
			if u.Name != name.Value || len(u.SSHKeys) == 0 {
				continue
			}
			if sameKeys(u.SSHKeys, keys) {
				made[u.Name] = true
				for _, e := range u.madeElsewhere(fmt.Sprintf("users[%d]", i), "write it into the document, which makes this user") {
					e.Line, e.Column = name.Line, name.Column
					errs = append(errs, e)
				}
				continue
			}
			errs = append(errs, at(name, fmt.Sprintf("users[%d]", i), u.Name, ErrOtherKeys,
				"give the keys in one place only: leave out --ssh-key, or the user in the document"))
		}
	}
	return errs
}

// account returns name and SSH keys of an item of users. cloud-init takes
// dashes in keys for underscores.
func account(n *yaml.Node, names, sshKeys finder) (name *yaml.Node, keys []string) {
	if n.Kind == yaml.ScalarNode {
		return n, nil
	}
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	f := names.in(n)
	if f == nil || f.value.Kind != yaml.ScalarNode {
		return nil, nil
	}
	if k := sshKeys.in(n); k != nil {
		if k.value.Kind == yaml.ScalarNode {
			keys = append(keys, k.value.Value)
		}
		for _, line := range k.value.Content {
			keys = append(keys, resolve(line).Value)
		}
	}
	return f.value, keys
}

// sameKeys compares keys without their comments.
func sameKeys(a, b []string) bool {
	canonical := func(lines []string) []string {
		var out []string
		for _, line := range lines {
			key, e := sshKey(strings.TrimSpace(line))
			if e != nil {
				return []string{"?"}
			}
			out = append(out, string(key.Marshal()))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(canonical(a), canonical(b))
}

func clashingPasswords(t theirs, _ map[string]bool) Errors {
	f, e := t.get("ssh_pwauth")
	if e != nil {
		return Errors{e}
	}
	// The words are those of cloud-init's util.is_true.
	if f == nil || !isTrue(f.value) {
		return nil
	}
	return Errors{at(f.value, "ssh_pwauth", f.value.Value, ErrPasswordAuth, fixPasswordAuth)}
}

// clashingModules finds lists of modules without those that make users and write
// files.
func clashingModules(t theirs, _ map[string]bool) Errors {
	items, errs := t.list("cloud_init_modules")
	if len(errs) > 0 || items == nil {
		return errs
	}
	f, _ := t.get("cloud_init_modules")
	for _, want := range []string{"write_files", "users_groups"} {
		if !slices.ContainsFunc(items, func(n *yaml.Node) bool {
			if n.Kind == yaml.SequenceNode && len(n.Content) > 0 {
				n = resolve(n.Content[0]) // [name, frequency]
			}
			return strings.ReplaceAll(n.Value, "-", "_") == want
		}) {
			errs = append(errs, at(f.value, "cloud_init_modules", strings.ReplaceAll(want, "_", "-"), ErrModules, "add it, or leave the whole key out"))
		}
	}
	return errs
}

var blanks = regexp.MustCompile(`\s`)

// clashingMergeRules accepts the rules of ours alone: cloud-init takes the first
// it finds.
func clashingMergeRules(t theirs) Errors {
	var errs Errors
	for _, name := range []string{"merge_how", "merge_type"} {
		f, e := t.get(name)
		switch {
		case e != nil:
			errs = append(errs, e)
		case f != nil && blanks.ReplaceAllString(f.value.Value, "") != mergeRules:
			errs = append(errs, at(f.key, name, "", ErrMergeHow, "leave it out; the rules that are put in are "+mergeRules))
		}
	}
	return errs
}
