// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/leak"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// ErrLeak means that a search has found a secret outside the PAM state files, or
// did not find it in them.
var ErrLeak = errors.New("secrets are not where they should be")

// stateDir is where the PAM module keeps its files.
const stateDir = "/var/lib/google-authenticator"

// Place is one thing that was searched.
type Place struct {
	Name   string
	Extent string   // how much was read
	Found  []string // where in it, and what; empty for nothing
	OK     bool
}

// Search looks for the secrets and backup codes of cards on the disk of the
// instance, which must not be running, and in everything that this machine has
// of it. The error wraps [ErrLeak] where a place is not as it should be; the places are
// returned all the same.
func (i *Instance) Search(ctx context.Context, cards []card.Card) ([]Place, error) {
	defer i.lab.Report.Busy("searching", nil)()
	var all []*leak.Needles
	for _, c := range cards {
		n, err := leak.New(c.Secret, c.BackupCodes)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	s := &search{instance: i, cards: cards, needles: leak.Join(all...)}
	dir, err := os.MkdirTemp(i.dir, "search-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	disk, err := vm.Open(ctx, i.Disk, dir)
	if err != nil {
		return nil, err
	}
	tree := filepath.Join(dir, "files")
	if err := os.Mkdir(tree, 0o700); err != nil {
		return nil, err
	}
	if err := disk.Extract(ctx, tree); err != nil {
		return nil, err
	}
	for _, do := range []func() error{
		func() error { return s.files(tree) },
		func() error { return s.blocks(ctx, disk) },
		func() error { return s.nowhere("its console log, all boots", i.Console) },
		func() error {
			return s.nowhere("what the host received at the virtio port", i.ReceivedDir(), i.ReceiverLog())
		},
		func() error { return s.nowhere("what the build has left on the host", i.lab.BuildFiles()...) },
	} {
		if err := do(); err != nil {
			return nil, err
		}
	}
	for _, p := range s.places {
		if !p.OK {
			return s.places, fmt.Errorf("%s: %w", p.Name, ErrLeak)
		}
	}
	return s.places, nil
}

type search struct {
	instance *Instance
	cards    []card.Card
	needles  *leak.Needles
	places   []Place
}

// files searches all files of the disk: in the state file of each card there
// must be its secret, and nothing anywhere else.
func (s *search) files(tree string) error {
	hits, extent, err := s.needles.Tree(tree)
	if err != nil {
		return err
	}
	var want []string
	for _, c := range s.cards {
		want = append(want, strings.TrimPrefix(path.Join(stateDir, c.User), "/"))
	}
	slices.Sort(want)
	found := leak.Files(hits)
	p := Place{Name: "every file of its disk", Extent: amount(extent), OK: slices.Equal(found, want)}
	for _, name := range found {
		p.Found = append(p.Found, fmt.Sprintf("/%s: %s", name, kinds(hits, name)))
	}
	for _, c := range s.cards {
		// Found is not enough: each file must hold its own user's.
		own, err := leak.New(c.Secret, c.BackupCodes)
		if err != nil {
			return err
		}
		hits, err := own.File(filepath.Join(tree, stateDir, c.User))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(hits) == 0 {
			p.OK = false
			p.Found = append(p.Found, fmt.Sprintf("%s: not the secret of %s", path.Join(stateDir, c.User), c.User))
		}
	}
	s.places = append(s.places, p)
	return nil
}

// blocks searches the disk itself, freed blocks and journal included. The PAM
// module writes a user's state file anew at each login: what is found in a free
// block must be such a file.
func (s *search) blocks(ctx context.Context, disk *vm.Disk) error {
	hits, err := s.needles.File(disk.Raw)
	if err != nil {
		return err
	}
	var offsets []int64
	for _, h := range hits {
		offsets = append(offsets, h.Offset)
	}
	blocks, err := disk.Blocks(ctx, offsets)
	if err != nil {
		return err
	}
	info, err := os.Stat(disk.Raw)
	if err != nil {
		return err
	}
	p := Place{Name: "its raw disk, block by block", Extent: fmt.Sprintf("%d MB", info.Size()>>20), OK: true}
	live, old := 0, 0
	for _, b := range blocks {
		switch {
		case path.Dir(b.File) == stateDir:
			live++
		case b.Free && s.isState(b.Data):
			old++
		case b.Free:
			p.OK = false
			p.Found = append(p.Found, fmt.Sprintf("free block %d: no old state file", b.Number))
		default:
			p.OK = false
			p.Found = append(p.Found, fmt.Sprintf("block %d of %q", b.Number, b.File))
		}
	}
	p.Found = append(p.Found,
		fmt.Sprintf("%d blocks of PAM state files", live),
		fmt.Sprintf("%d free blocks, each an older version of a PAM state file", old))
	p.OK = p.OK && live == len(s.cards)
	s.places = append(s.places, p)
	return nil
}

// isState reports whether data are a state file with the secret of a card.
func (s *search) isState(data []byte) bool {
	state, err := otp.ParseState(data)
	return err == nil && slices.ContainsFunc(s.cards, func(c card.Card) bool { return c.Secret == state.Secret })
}

// nowhere searches files and directories in which nothing may be found.
func (s *search) nowhere(what string, names ...string) error {
	p := Place{Name: what}
	var total leak.Extent
	for _, name := range names {
		hits, extent, err := s.needles.Tree(name)
		if err != nil {
			return err
		}
		total.Files += extent.Files
		total.Bytes += extent.Bytes
		for _, h := range hits {
			p.Found = append(p.Found, fmt.Sprintf("%s: %s", filepath.Base(name), h))
		}
	}
	p.Extent = amount(total)
	p.OK = len(p.Found) == 0 && total.Bytes > 0
	s.places = append(s.places, p)
	return nil
}

func amount(e leak.Extent) string {
	if e.Bytes < 10<<20 {
		return fmt.Sprintf("%d files, %d kB", e.Files, e.Bytes>>10)
	}
	return fmt.Sprintf("%d files, %d MB", e.Files, e.Bytes>>20)
}

// kinds says what was found in a file.
func kinds(hits []leak.Hit, file string) string {
	var order []string
	count := map[string]int{}
	for _, h := range hits {
		if h.File != file {
			continue
		}
		if count[h.Kind] == 0 {
			order = append(order, h.Kind)
		}
		count[h.Kind]++
	}
	var parts []string
	for _, k := range order {
		part := k
		if count[k] > 1 {
			part = fmt.Sprintf("%s (%d times)", k, count[k])
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}

// ShowPlaces formats what a search has found.
func ShowPlaces(places []Place) string {
	var b strings.Builder
	for _, p := range places {
		mark := "ok"
		if !p.OK {
			mark = "WRONG"
		}
		fmt.Fprintf(&b, "%-5s  %s (%s)\n", mark, p.Name, p.Extent)
		if len(p.Found) == 0 {
			b.WriteString("         nothing\n")
		}
		for _, f := range p.Found {
			fmt.Fprintf(&b, "         %s\n", f)
		}
	}
	return b.String()
}
