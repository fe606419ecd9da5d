// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// TestOrder: what is confirmed was written, synchronised, named, and its name
// synchronised, in this order. A power cut between any two leaves an envelope
// that nobody was told of.
func TestOrder(t *testing.T) {
	var mu sync.Mutex
	var trace []string
	note := func(step string) {
		mu.Lock()
		defer mu.Unlock()
		trace = append(trace, step)
	}
	var final string
	named := func(step string) string {
		if _, err := os.Lstat(final); err == nil {
			return step + ", named"
		}
		return step
	}
	h := start(t, func(o *Options) {
		final = filepath.Join(o.Dir, "alice-"+aliceID+".age")
		o.write = func(f *os.File, data []byte) error {
			note(named("write"))
			return writeAll(f, data)
		}
		o.tune = func(g *group) {
			files, dirs := g.syncFiles, g.syncDirs
			g.syncFiles = func(fs []*os.File) []error {
				for _, f := range fs {
					if fi, err := f.Stat(); err != nil || fi.Size() == 0 {
						t.Errorf("synchronised with nothing in it: %v", err)
					}
					note(named("sync the file"))
				}
				return files(fs)
			}
			g.syncDirs = func(names []string) []error {
				for _, name := range names {
					if name != o.Dir {
						t.Errorf("synchronised %q, want %q", name, o.Dir)
					}
					note(named("sync the directory"))
				}
				return dirs(names)
			}
		}
	})
	alice := envelope(t, 1000)
	g := h.dial()
	g.send(message(t, aliceID, "alice", alice))
	g.expect(frame.OK(alice))
	note("OK")
	want := []string{"write", "sync the file", "sync the directory, named", "OK"}
	mu.Lock()
	defer mu.Unlock()
	if !slices.Equal(trace, want) {
		t.Errorf("order %q, want %q", trace, want)
	}
}

// TestNameDurable: the name of a client's directory is synchronised each time, since
// the directory may have been removed and made again.
func TestNameDurable(t *testing.T) {
	dir := t.TempDir()
	s := newStore(dir, writeAll)
	var synced []string
	s.groups.syncDirs = func(names []string) []error {
		synced = append(synced, names...)
		return syncDirs(names)
	}
	sub := filepath.Join(dir, "web-1")
	for range 2 {
		synced = nil
		if fresh, err := s.put(filepath.Join("web-1", "a.age"), []byte("envelope")); !fresh || err != nil {
			t.Fatalf("stored %v, %v", fresh, err)
		}
		if want := []string{dir, sub}; !slices.Equal(synced, want) {
			t.Errorf("synchronised %q, want %q", synced, want)
		}
		if err := os.RemoveAll(sub); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDirsDurable: the name of every directory that was made is synchronised.
func TestDirsDurable(t *testing.T) {
	base := t.TempDir()
	var synced []string
	note := func(dir string) error {
		rel, err := filepath.Rel(base, dir)
		if err != nil {
			return err
		}
		synced = append(synced, rel)
		return syncDir(dir)
	}
	if err := prepare(filepath.Join(base, "a", "b", "c"), note); err != nil {
		t.Fatal(err)
	}
	if want := []string{".", "a", filepath.Join("a", "b")}; !slices.Equal(synced, want) {
		t.Errorf("synchronised %q, want %q", synced, want)
	}
	synced = nil
	if err := prepare(filepath.Join(base, "a", "b", "c"), note); err != nil || len(synced) != 0 {
		t.Errorf("of a directory that is there: synchronised %q, %v", synced, err)
	}
}
