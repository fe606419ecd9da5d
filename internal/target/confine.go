// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"io/fs"
	"os"
	"strings"
	"sync"
)

// deliverable are the directories that totp-deliver.service may write. It is confined and
// sees no secret, but others that do read and write these directories too. So no name below
// one leads out of it: a symbolic link there is an error (ELOOP), whenever it is put there.
var deliverable = []string{Outbox, Receipts, Envelopes, BannerDir}

// A confined directory is opened when it is used, and again when it was replaced.
type confined struct {
	rel string

	mu   sync.Mutex
	root *os.Root
	info fs.FileInfo
	old  []*os.Root // may be in use
}

func confine(dirs []string) []*confined {
	var all []*confined
	for _, d := range dirs {
		all = append(all, &confined{rel: strings.TrimPrefix(d, "/")})
	}
	return all
}

// confinedBelow returns the confined directory above a path relative to the root, and the
// path from there.
func (t *Target) confinedBelow(rel string) (*confined, string) {
	for _, c := range t.confined {
		if below, ok := strings.CutPrefix(rel, c.rel+"/"); ok {
			return c, below
		}
	}
	return nil, ""
}

// within reports whether a directory is the confined one or below it. Every directory is
// where c is nil.
func (c *confined) within(rel string) bool {
	return c == nil || rel == c.rel || strings.HasPrefix(rel, c.rel+"/")
}

// open returns the open directory, nil where there is none.
func (c *confined) open(from *os.Root) *os.Root {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fi, err := from.Lstat(c.rel)
	if err != nil || !fi.IsDir() {
		return nil
	}
	if c.root != nil && os.SameFile(fi, c.info) {
		return c.root
	}
	root, err := from.OpenRoot(c.rel)
	if err != nil {
		return nil
	}
	if c.root != nil {
		c.old = append(c.old, c.root)
	}
	c.root, c.info = root, fi
	return root
}

func (c *confined) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root != nil {
		c.root.Close()
	}
	for _, r := range c.old {
		r.Close()
	}
	c.root, c.old = nil, nil
}
