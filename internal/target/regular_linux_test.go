// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
)

// swap makes name a regular file and a link to dest in turn, until the test ends.
func swap(tb testing.TB, t *Target, name, dest string) {
	tb.Helper()
	put(tb, t, name, "", 0o600)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			next := t.host(name) + ".next"
			if errors.Join(os.Symlink(dest, next), os.Rename(next, t.host(name)), os.WriteFile(next, nil, 0o600), os.Rename(next, t.host(name))) != nil {
				panic("cannot swap " + name)
			}
		}
	}()
	tb.Cleanup(func() { close(stop); <-stopped })
}

func socket(tb testing.TB, t *Target, name string) {
	tb.Helper()
	l, err := net.Listen("unix", t.host(name))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
}

func TestOpenRegular(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/d/file", "text", 0o600)
	link(tt, t, "file", "/d/link")
	socket(tt, t, "/d/socket") // an error of its own says that one was opened
	if err := syscall.Mkfifo(t.host("/d/pipe"), 0o600); err != nil {
		tt.Fatal(err)
	}
	for name, want := range map[string]error{"file": nil, "link": ErrNotRegular, "socket": ErrNotRegular, "pipe": ErrNotRegular, "none": fs.ErrNotExist} {
		f, err := t.OpenRegular("/d/"+name, os.O_RDONLY)
		if !errors.Is(err, want) {
			tt.Errorf("%s: %v, want %v", name, err, want)
		}
		if err != nil {
			continue
		}
		if b, err := io.ReadAll(f); string(b) != "text" || err != nil {
			tt.Errorf("%s: %q, %v", name, b, err)
		}
		f.Close()
	}
}

// TestLoginKeysRace: a user can change what the name stands for while it is looked at.
func TestLoginKeysRace(tt *testing.T) {
	t := open(tt)
	if err := t.Mkdir("/run", 0o755); err != nil {
		tt.Fatal(err)
	}
	socket(tt, t, "/run/s")
	swap(tt, t, "/home/alice/.ssh/authorized_keys", "/run/s")
	for range 2000 {
		if _, err := t.LoginKeys(User{Name: "alice", UID: os.Geteuid(), Home: "/home/alice"}); errors.Is(err, syscall.ENXIO) {
			tt.Fatalf("the socket was opened: %v", err)
		}
	}
}
