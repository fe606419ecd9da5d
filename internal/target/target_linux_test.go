// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"os"
	"syscall"
	"testing"
)

// Whoever owns a home directory may put a named pipe there; it must not hold
// the boot.
func TestReadFileDoesNotWaitForAPipe(tt *testing.T) {
	t := open(tt)
	if err := syscall.Mkfifo(t.host("/pipe"), 0o600); err != nil {
		tt.Fatal(err)
	}
	if _, err := t.ReadFile("/pipe"); !errors.Is(err, ErrNotRegular) {
		tt.Errorf("got %v", err)
	}
}

func TestUmaskDoesNotMatter(tt *testing.T) {
	old := syscall.Umask(0o777)
	defer syscall.Umask(old)
	dir := tt.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		tt.Fatal(err)
	}
	t, err := Open(dir)
	if err != nil {
		tt.Fatal(err)
	}
	defer t.Close()
	if err := t.Mkdir("/a/b", 0o700); err != nil {
		tt.Fatal(err)
	}
	if err := t.WriteFile("/a/b/f", nil, 0o640); err != nil {
		tt.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"/a": 0o755, "/a/b": 0o700, "/a/b/f": 0o640} {
		if fi, err := t.Lstat(name); err != nil || fi.Mode().Perm() != want {
			tt.Errorf("%s: %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestLock(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/d/f", "", 0o600)
	unlock, err := t.Lock("/d")
	if err != nil {
		tt.Fatal(err)
	}
	if _, err := t.Lock("/d"); !errors.Is(err, ErrLocked) {
		tt.Errorf("a second lock: %v", err)
	}
	unlock()
	again, err := t.Lock("/d")
	if err != nil {
		tt.Fatalf("after unlock: %v", err)
	}
	again()
}
