// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package receive

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestSyncs: what is called synchronised is, by the kernel: it refuses what has no
// disk, and says so.
func TestSyncs(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if errs := syncFiles([]*os.File{file, w}); len(errs) != 2 || errs[0] != nil || errs[1] == nil {
		t.Errorf("of a file and a pipe: %v", errs)
	}
	if errs := syncDirs([]string{filepath.Dir(file.Name()), os.DevNull}); len(errs) != 2 || errs[0] != nil || errs[1] == nil {
		t.Errorf("of a directory and a device: %v", errs)
	}
}

// TestForeignDirectory: a client's directory that leads elsewhere, or that others
// write to, takes no envelope.
func TestForeignDirectory(t *testing.T) {
	for name, make := range map[string]func(dir, elsewhere string) error{
		"a link":           func(dir, elsewhere string) error { return os.Symlink(elsewhere, dir) },
		"a file":           func(dir, _ string) error { return os.WriteFile(dir, nil, 0o600) },
		"open to everyone": func(dir, _ string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
	} {
		t.Run(name, func(t *testing.T) {
			in, elsewhere := t.TempDir(), t.TempDir()
			if err := make(filepath.Join(in, "web-1"), elsewhere); err != nil {
				t.Fatal(err)
			}
			fresh, err := newStore(in, writeAll).put(filepath.Join("web-1", "a.age"), []byte("envelope"))
			if fresh || !errors.Is(err, ErrDir) {
				t.Errorf("stored %v, %v", fresh, err)
			}
			left, err := filepath.Glob(filepath.Join(elsewhere, "*"))
			if err != nil || len(left) != 0 {
				t.Errorf("elsewhere there is %q, %v", left, err)
			}
			if left, err = filepath.Glob(filepath.Join(in, "web-1", "*")); err != nil || len(left) != 0 {
				t.Errorf("in the directory there is %q, %v", left, err)
			}
		})
	}
}
