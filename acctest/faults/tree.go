// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux && amd64

package faults

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// A Tree is what a run has changed, by names in which random IDs are "ID": the mode, owner
// and content of each file of that name. A removed file is "removed".
type Tree map[string][]string

// randomID is an ID of an envelope, or the random part of a temporary file's name.
var randomID = regexp.MustCompile(`\b(?:[a-z2-7]{26}|[A-Z2-7]{26})\b`)

// Normal returns a name or line with "ID" for each random ID.
func Normal(name string) string { return randomID.ReplaceAllString(name, "ID") }

// Tree returns what differs from the root now. A file that is in the layer and is like the
// root's does not differ.
func (c *Copy) Tree() (Tree, error) {
	tree := Tree{}
	changed, err := c.Changed()
	if err != nil {
		return nil, err
	}
	for _, name := range changed {
		now, err := describeFile(c.Path(name))
		if err != nil {
			return nil, err
		}
		if before, err := describeFile(c.root.Path(name)); err == nil && before == now {
			continue
		}
		tree[Normal(name)] = append(tree[Normal(name)], now)
	}
	removed, err := c.Removed()
	if err != nil {
		return nil, err
	}
	for _, name := range removed {
		tree[Normal(name)] = append(tree[Normal(name)], "removed")
	}
	return tree, nil
}

func describeFile(name string) (string, error) {
	st, err := os.Lstat(strings.TrimSuffix(name, "/"))
	if err != nil {
		return "", err
	}
	owner := st.Sys().(*syscall.Stat_t)
	text := fmt.Sprintf("%v %d:%d", st.Mode(), owner.Uid, owner.Gid)
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(name)
		return text + " -> " + target, err
	case st.Mode().IsRegular():
		data, err := os.ReadFile(name)
		return fmt.Sprintf("%s %x", text, sha256.Sum256(data)), err
	}
	return text, nil
}

// Compare reports how a tree differs from what is wanted, which is what two runs without a
// fault have left: content that differs between those two is not compared. With subset a
// tree may lack files.
func (t Tree) Compare(want, again Tree, subset bool) (problems []string) {
	for name, files := range t {
		switch {
		case len(want[name]) == 0:
			problems = append(problems, "left: "+name)
		case len(files) > len(want[name]):
			problems = append(problems, fmt.Sprintf("left: %d of %s, want %d", len(files), name, len(want[name])))
		default:
			stable := slices.Equal(sorted(want[name]), sorted(again[name]))
			if !stable {
				files, want := modes(files), modes(want[name])
				if !contains(want, files) {
					problems = append(problems, fmt.Sprintf("%s: %q, want %q", name, files, want))
				}
			} else if !contains(want[name], files) {
				problems = append(problems, fmt.Sprintf("%s: %q, want %q", name, files, want[name]))
			}
		}
	}
	for name, files := range want {
		if !subset && len(t[name]) < len(files) && len(again[name]) > 0 {
			problems = append(problems, fmt.Sprintf("missing: %s (%d of %d)", name, len(t[name]), len(files)))
		}
	}
	slices.Sort(problems)
	return problems
}

func sorted(s []string) []string { return slices.Sorted(slices.Values(s)) }

// modes drops the contents.
func modes(files []string) (all []string) {
	for _, f := range files {
		fields := strings.Fields(f)
		all = append(all, strings.Join(fields[:min(2, len(fields))], " "))
	}
	return all
}

func contains(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}
