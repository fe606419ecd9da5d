// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
)

// A held directory is one that is kept open, so that what is below it is found
// from there: [os.Root] opens each directory on the way to a file anew, which at
// boot is most of what an enrollment costs.
type held struct {
	rel  string
	root *os.Root
}

// View is the same system for one pass over it, which may hold directories without
// anybody else's seeing that. [Target.Release] ends it; Close would close both.
func (t *Target) View() *Target {
	return &Target{dir: t.dir, root: t.root, runner: t.runner, trace: t.trace, fault: t.fault, confined: t.confined}
}

// Hold keeps directories open, for as long as nobody moves or removes them, and
// until Release or Close. What is done below one that was removed fails. It is not
// to be called while others use the same Target: take a [Target.View].
func (t *Target) Hold(dirs ...string) error {
	for _, name := range dirs {
		rel, err := t.resolve(name, true)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(t.held, func(h held) bool { return h.rel == rel }) {
			continue
		}
		from, below := t.at(rel)
		root, err := from.OpenRoot(below)
		if err != nil {
			return guest(name, err)
		}
		t.held = append(t.held, held{rel, root})
		// The deepest come first.
		slices.SortFunc(t.held, func(a, b held) int { return len(b.rel) - len(a.rel) })
	}
	return nil
}

// Release closes all directories that are held.
func (t *Target) Release() error {
	var errs []error
	for _, h := range t.held {
		errs = append(errs, h.root.Close())
	}
	t.held = nil
	return errors.Join(errs...)
}

// at is the nearest open directory above a path relative to the root, and the
// path from there.
func (t *Target) at(rel string) (*os.Root, string) {
	c, fromC := t.confinedBelow(rel)
	for _, h := range t.held {
		if below, ok := strings.CutPrefix(rel, h.rel+"/"); ok && c.within(h.rel) {
			return h.root, below
		}
	}
	if root := c.open(t.root); root != nil {
		return root, fromC
	}
	return t.root, rel
}

// open opens a directory for reading.
func (t *Target) open(rel string) (*os.File, error) {
	if err := t.check("open", rel); err != nil {
		return nil, err
	}
	for _, h := range t.held {
		if h.rel == rel {
			return h.root.Open(".")
		}
	}
	root, rel := t.at(rel)
	return root.Open(rel)
}

// rename is done from the nearest open directory above both names.
func (t *Target) rename(from, to string) error {
	if err := t.check("rename", to); err != nil {
		return err
	}
	c, fromC := t.confinedBelow(from)
	for _, h := range t.held {
		f, ok := strings.CutPrefix(from, h.rel+"/")
		if !ok || !c.within(h.rel) {
			continue
		}
		if n, ok := strings.CutPrefix(to, h.rel+"/"); ok {
			return h.root.Rename(f, n)
		}
	}
	if d, toC := t.confinedBelow(to); d == c {
		if root := c.open(t.root); root != nil {
			return root.Rename(fromC, toC)
		}
	}
	return t.root.Rename(from, to)
}

// create opens a new file for writing.
func (t *Target) create(rel string, mode os.FileMode) (*os.File, error) {
	if err := t.check("create", rel); err != nil {
		return nil, err
	}
	root, rel := t.at(path.Clean(rel))
	return root.OpenFile(rel, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
}
