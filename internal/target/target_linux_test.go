// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"os"
	"path/filepath"
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
	if err := t.Mkdir("/d", 0o700); err != nil {
		tt.Fatal(err)
	}
	if err := t.Mkdir("/open", 0o755); err != nil {
		tt.Fatal(err)
	}
	for name, lock := range map[string]func() (func(), error){
		"directory":                func() (func(), error) { return t.Lock("/d") },
		"file in a closed one":     func() (func(), error) { return t.LockFile("/d/lock") },
		"file in an open one":      func() (func(), error) { return t.LockFile("/open/lock") },
		"file in one, again there": func() (func(), error) { return t.LockFile("/open/lock") },
	} {
		unlock, err := lock()
		if err != nil {
			tt.Fatalf("%s: %v", name, err)
		}
		if _, err := lock(); !errors.Is(err, ErrLocked) {
			tt.Errorf("%s: a second lock: %v", name, err)
		}
		unlock()
		again, err := lock()
		if err != nil {
			tt.Fatalf("%s: after unlock: %v", name, err)
		}
		again()
	}
}

// flock(2) asks for no right beyond opening: what other users can open is not locked.
func TestLockRefusesWhatOthersCanOpen(tt *testing.T) {
	t := open(tt)
	for _, mode := range []os.FileMode{0o755, 0o711, 0o750, 0o701, 0o705} {
		if err := t.Mkdir("/d", mode); err != nil {
			tt.Fatal(err)
		}
		if _, err := t.Lock("/d"); !errors.Is(err, ErrLockOpen) {
			tt.Errorf("directory of mode %o: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o660, 0o622} {
		if err := t.WriteFile("/d/lock", nil, mode); err != nil {
			tt.Fatal(err)
		}
		if _, err := t.LockFile("/d/lock"); !errors.Is(err, ErrLockOpen) {
			tt.Errorf("file of mode %o: %v", mode, err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(t.Root(), "d/fifo"), 0o600); err != nil {
		tt.Fatal(err)
	}
	if _, err := t.LockFile("/d/fifo"); !errors.Is(err, ErrLockOpen) {
		tt.Errorf("a named pipe: %v", err)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := t.WriteFile("/d/other", nil, 0o600); err != nil {
		tt.Fatal(err)
	}
	if err := t.Lchown("/d/other", 1000, 0); err != nil {
		tt.Fatal(err)
	}
	if _, err := t.LockFile("/d/other"); !errors.Is(err, ErrLockOpen) {
		tt.Errorf("a file of another user: %v", err)
	}
}
