// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// testDisk makes a small file system with some files, one of them removed again.
func testDisk(t *testing.T) *Disk {
	t.Helper()
	for _, name := range []string{"mke2fs", "debugfs", "e2fsck"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skip(err)
		}
	}
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	for name, text := range map[string]string{
		"etc/motd": "hello\n", "var/a file": "MARK live\n", "var/gone": "MARK removed\n", "empty": "",
	} {
		name = filepath.Join(tree, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("motd", filepath.Join(tree, "etc/link")); err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(dir, "raw")
	if err := run(t.Context(), "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, raw, "8M"); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), "debugfs", "-w", "-R", "rm /var/gone", raw); err != nil {
		t.Fatal(err)
	}
	d, err := openRaw(t.Context(), raw, filepath.Join(dir, "view"))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDiskFiles(t *testing.T) {
	d := testDisk(t)
	if data, err := d.ReadFile(t.Context(), "/var/a file"); err != nil || string(data) != "MARK live\n" {
		t.Errorf("got %q, %v", data, err)
	}
	for _, name := range []string{"/var/gone", "/nowhere/at all"} {
		if _, err := d.ReadFile(t.Context(), name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if names, err := d.ReadDir(t.Context(), "/var"); err != nil || !slices.Equal(names, []string{"a file"}) {
		t.Errorf("got %q, %v", names, err)
	}
	if _, err := d.ReadDir(t.Context(), "/nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestDiskExtract(t *testing.T) {
	d := testDisk(t)
	out := t.TempDir()
	if err := d.Extract(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	err := filepath.WalkDir(out, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		got[strings.TrimPrefix(name, out)] = string(data)
		return err
	})
	want := map[string]string{"/etc/motd": "hello\n", "/etc/link": "hello\n", "/var/a file": "MARK live\n", "/empty": ""}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestDiskBlocks(t *testing.T) {
	d := testDisk(t)
	data, err := os.ReadFile(d.Raw)
	if err != nil {
		t.Fatal(err)
	}
	offsets := []int64{
		int64(strings.Index(string(data), "MARK live")),
		int64(strings.Index(string(data), "MARK live")) + 3, // the same block again
		int64(strings.Index(string(data), "MARK removed")),
		1024, // the superblock
		4096, // the group descriptors
	}
	blocks, err := d.Blocks(t.Context(), offsets)
	if err != nil || len(blocks) != 4 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	for _, b := range blocks {
		switch {
		case string(b.Data) == "MARK live\n":
			if b.Free || b.File != "/var/a file" {
				t.Errorf("live: %v %q", b.Free, b.File)
			}
		case string(b.Data) == "MARK removed\n":
			if !b.Free || b.File != "" {
				t.Errorf("removed: %v %q", b.Free, b.File)
			}
		case b.Number < 2:
			if b.Free || b.File != "" {
				t.Errorf("the file system's own: %v %q", b.Free, b.File)
			}
		default:
			t.Errorf("block %d: %q", b.Number, b.Data)
		}
	}
}

func TestWhatIsNoDisk(t *testing.T) {
	testDisk(t) // skips
	name := filepath.Join(t.TempDir(), "raw")
	if err := os.WriteFile(name, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openRaw(t.Context(), name, name+".view"); !errors.Is(err, ErrDisk) {
		t.Errorf("open: %v", err)
	}
	if _, err := (&Disk{Raw: name}).BlockSize(); !errors.Is(err, ErrDisk) {
		t.Errorf("block size: %v", err)
	}
}
