// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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

// TestHolder: it is this process that has the lock.
func TestHolder(tt *testing.T) {
	t := open(tt)
	if err := t.Mkdir("/d", 0o700); err != nil {
		tt.Fatal(err)
	}
	if who := t.Holder("/d"); who != "" {
		tt.Errorf("not locked: %q", who)
	}
	unlock, err := t.Lock("/d")
	if err != nil {
		tt.Fatal(err)
	}
	defer unlock()
	if who, want := t.Holder("/d"), fmt.Sprintf("pid %d", os.Getpid()); who != want {
		tt.Errorf("locked: %q, want %q", who, want)
	}
	if who := t.Holder("/none"); who != "" {
		tt.Errorf("nothing there: %q", who)
	}
}

func TestProgram(t *testing.T) {
	for argv, want := range map[string]string{
		"/usr/local/sbin/totp-agent\x00reset\x00alice\x00": "totp-agent reset",
		"totp-agent\x00check\x00--repair\x00":              "totp-agent check",
		"totp-agent":                                       "totp-agent",
		"flock\x00/d\x00TOKEN=x\x00":                       "flock",
		"sh; rm -rf /\x00":                                 "",
		"totp-agent\x00\x1b[2J\x00":                        "",
		"":                                                 "",
	} {
		if got := program(strings.Split(argv, "\x00")); got != want {
			t.Errorf("%q: %q, want %q", argv, got, want)
		}
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

// TestIsFault: what is wrong with a file is no fault of the machine.
func TestIsFault(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {fs.ErrNotExist, false}, {ErrNotRegular, false}, {ErrTooLarge, false},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.ENOENT}, false}, {syscall.ENOTDIR, false}, {syscall.ELOOP, false},
		{&fs.PathError{Op: "open", Path: "/x", Err: syscall.EIO}, true}, {syscall.EMFILE, true}, {syscall.ENFILE, true},
		{syscall.EACCES, true}, {syscall.ENOMEM, true}, {syscall.ESTALE, true},
		{fmt.Errorf("layer: %w", errors.Join(syscall.EIO)), true},
	} {
		if got := IsFault(tt.err); got != tt.want {
			t.Errorf("IsFault(%v) = %v, want %v", tt.err, got, tt.want)
		}
	}
}

// TestFault: an access that is to fail does, and the next one does not.
func TestFault(t *testing.T) {
	tg, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	for op, do := range map[string]func() error{
		"open":    func() error { _, err := tg.ReadDir("/"); return err },
		"lstat":   func() error { _, err := tg.Lstat("/"); return err },
		"create":  func() error { return tg.WriteFile("/f", nil, 0o600) },
		"write":   func() error { return tg.WriteFile("/f", nil, 0o600) },
		"sync":    func() error { return tg.WriteFile("/f", nil, 0o600) },
		"rename":  func() error { return tg.WriteFile("/f", nil, 0o600) },
		"syncdir": func() error { return tg.WriteFile("/f", nil, 0o600) },
		"syncfs":  func() error { return tg.Sync("/") },
		"mkdir":   func() error { return tg.Create("/d", nil) },
		"chmod":   func() error { return tg.Chmod("/d", 0o755) },
		"remove":  func() error { return tg.RemoveAll("/d") },
	} {
		t.Run(op, func(t *testing.T) {
			if err := tg.Create("/d", nil); err != nil && !errors.Is(err, fs.ErrExist) {
				t.Fatal(err)
			}
			if op == "mkdir" {
				if err := tg.RemoveAll("/d"); err != nil {
					t.Fatal(err)
				}
			}
			tg.Fault(func(o, _ string) error {
				if o == op {
					return syscall.EIO
				}
				return nil
			})
			err := do()
			tg.Fault(nil)
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("error %v, want %v", err, syscall.EIO)
			}
			if err := do(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A directory has its mode from its first moment on: a process that is killed after the
// mkdir sets none.
func TestMkdirAtOnce(tt *testing.T) {
	old := syscall.Umask(0o022)
	defer syscall.Umask(old)
	tg, err := Open(tt.TempDir())
	if err != nil {
		tt.Fatal(err)
	}
	defer tg.Close()
	killed := errors.New("killed")
	tg.Fault(func(op, _ string) error {
		if op == "chmod" {
			return killed
		}
		return nil
	})
	for _, mode := range []fs.FileMode{0o700, 0o755, 0o711, 0o750} {
		name := fmt.Sprintf("/new%o", mode)
		if err := tg.Mkdir(name, mode); err != nil {
			tt.Errorf("%v: %v", mode, err)
		}
		if fi, err := tg.Lstat(name); err != nil || fi.Mode().Perm() != mode {
			tt.Errorf("%v: %v, %v", mode, fi.Mode(), err)
		}
	}
}
