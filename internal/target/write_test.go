// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func names(tb testing.TB, t *Target, dir string) string {
	tb.Helper()
	es, err := os.ReadDir(t.host(dir))
	if err != nil {
		tb.Fatal(err)
	}
	var ns []string
	for _, e := range es {
		ns = append(ns, e.Name())
	}
	return strings.Join(ns, " ")
}

func TestWriteFile(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/etc/old", "old", 0o644)
	put(tt, t, "/real/f", "real", 0o644)
	link(tt, t, "/real", "/dir")
	link(tt, t, "/etc/old", "/etc/link")
	for _, test := range []struct {
		name string
		mode fs.FileMode
		err  error
	}{
		{"/etc/new", 0o600, nil},
		{"/etc/old", 0o400, nil},
		{"/etc/exec", 0o755, nil},
		{"/dir/f", 0o644, nil},
		{"/etc/link", 0o600, ErrNotRegular},
		{"/etc", 0o600, ErrNotRegular},
		{"/missing/f", 0o600, fs.ErrNotExist},
		{"relative", 0o600, ErrPath},
	} {
		err := t.WriteFile(test.name, []byte("new"), test.mode)
		if !errors.Is(err, test.err) {
			tt.Errorf("%s: %v, want %v", test.name, err, test.err)
		}
		if test.err != nil {
			continue
		}
		b, err := t.ReadFile(test.name)
		if err != nil || string(b) != "new" {
			tt.Errorf("%s: reads %q, %v", test.name, b, err)
		}
		if fi, err := t.Lstat(test.name); err != nil || fi.Mode() != test.mode {
			tt.Errorf("%s: mode %v, %v; want %v", test.name, fi.Mode(), err, test.mode)
		}
	}
	if got := names(tt, t, "/etc"); got != "exec link new old" {
		tt.Errorf("left behind: %s", got)
	}
	if b, _ := os.ReadFile(t.host("/real/f")); string(b) != "new" {
		tt.Error("the file behind a linked directory was not written")
	}
}

// A write that fails half way, as on a full disk, leaves the old file and
// nothing besides.
func TestWriteFailsWhole(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/f", "old", 0o640)
	boom := errors.New("disk full")
	r := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(boom))
	if err := t.WriteFrom("/f", r, 0o600); !errors.Is(err, boom) {
		tt.Errorf("got %v", err)
	}
	if b, _ := t.ReadFile("/f"); string(b) != "old" {
		tt.Errorf("reads %q", b)
	}
	if fi, _ := t.Lstat("/f"); fi.Mode() != 0o640 {
		tt.Errorf("mode %v", fi.Mode())
	}
	if got := names(tt, t, "/"); got != "f" {
		tt.Errorf("left behind: %s", got)
	}
}

func TestSweep(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/d/"+tempPrefix+"ABC", "a secret", 0o600)
	put(tt, t, "/d/alice", "", 0o600)
	put(tt, t, "/d/alice~XYZ", "", 0o600)
	if err := t.Sweep("/d"); err != nil {
		tt.Fatal(err)
	}
	if got := names(tt, t, "/d"); got != "alice alice~XYZ" {
		tt.Errorf("after: %s", got)
	}
	if err := t.Sweep("/none"); err != nil {
		tt.Errorf("no directory: %v", err)
	}
}

func TestMkdir(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/file", "", 0o600)
	put(tt, t, "/loose/f", "", 0o600)
	if err := os.Chmod(t.host("/loose"), 0o777); err != nil {
		tt.Fatal(err)
	}
	link(tt, t, "/loose", "/linked")
	for _, test := range []struct {
		name string
		mode fs.FileMode
		err  error
	}{
		{"/var/lib/totp-agent", 0o700, nil},
		{"/var/lib/totp-agent", 0o700, nil},
		{"/var/lib/open", 0o755, nil},
		{"/linked/below", 0o700, nil},
		{"/loose", 0o700, nil},
		{"/linked", 0o700, ErrNotOurs},
		{"/file", 0o700, ErrNotOurs},
	} {
		if err := t.Mkdir(test.name, test.mode); !errors.Is(err, test.err) {
			tt.Errorf("%s: %v, want %v", test.name, err, test.err)
		}
		if test.err == nil {
			if fi, err := t.Lstat(test.name); err != nil || fi.Mode() != test.mode|fs.ModeDir {
				tt.Errorf("%s: %v, %v; want %v", test.name, fi.Mode(), err, test.mode)
			}
		}
	}
	if fi, _ := t.Lstat("/var"); fi.Mode().Perm() != 0o755 {
		tt.Errorf("/var: %v", fi.Mode())
	}
}

func TestMkdirForeignOwner(tt *testing.T) {
	if os.Geteuid() != 0 {
		tt.Skip("only root can give a directory away")
	}
	t := open(tt)
	put(tt, t, "/d/f", "", 0o600)
	if err := os.Chown(t.host("/d"), 12345, 12345); err != nil {
		tt.Fatal(err)
	}
	if err := t.Mkdir("/d", 0o700); !errors.Is(err, ErrNotOurs) {
		tt.Errorf("got %v", err)
	}
	if fi, _ := t.Lstat("/d"); fi.Mode().Perm() != 0o755 {
		tt.Error("the mode of somebody else's directory was changed")
	}
}

func TestRenameRemove(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/a/staged/x/meta", "m", 0o600)
	put(tt, t, "/a/ready/y/meta", "m", 0o600)
	if err := t.Rename("/a/staged/x", "/a/ready/x"); err != nil {
		tt.Fatal(err)
	}
	if got := names(tt, t, "/a/ready"); got != "x y" {
		tt.Errorf("ready: %s", got)
	}
	if err := t.Rename("/a/none", "/a/ready/z"); !errors.Is(err, fs.ErrNotExist) {
		tt.Errorf("rename of nothing: %v", err)
	}
	if err := t.RemoveAll("/a/ready/x"); err != nil || t.Exists("/a/ready/x") {
		tt.Errorf("RemoveAll: %v", err)
	}
	if err := t.RemoveAll("/a/ready/x"); err != nil {
		tt.Errorf("RemoveAll of nothing: %v", err)
	}
	if err := t.Remove("/a/ready/x"); !errors.Is(err, fs.ErrNotExist) {
		tt.Errorf("Remove of nothing: %v", err)
	}
}

// What is removed is the link, not what it leads to.
func TestRemoveAllKeepsWhatALinkLeadsTo(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/keep/f", "", 0o600)
	link(tt, t, "/keep", "/link")
	if err := t.RemoveAll("/link"); err != nil {
		tt.Fatal(err)
	}
	if t.Exists("/link") || !t.Exists("/keep/f") {
		tt.Error("the wrong thing was removed")
	}
}

func TestAttributes(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/f", "", 0o600)
	when := time.Unix(1234567890, 0)
	err := errors.Join(t.Chmod("/f", 0o640), t.Chtimes("/f", when), t.Lchown("/f", os.Geteuid(), os.Getegid()), t.Symlink("/f", "/l"), t.SyncDir("/"))
	fi, _ := t.Stat("/l")
	if err != nil || fi.Mode() != 0o640 || !fi.ModTime().Equal(when) {
		tt.Errorf("%v, %v, %v", err, fi.Mode(), fi.ModTime())
	}
	if uid, _, ok := Owner(fi); ok && uid != os.Geteuid() {
		tt.Errorf("owner %d", uid)
	}
}

func TestCreate(t *testing.T) {
	tt, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := tt.Mkdir("/var/box", 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"a": []byte("one"), "b": nil}
	if err := tt.Create("/var/box/x", files); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := tt.ReadFile("/var/box/x/" + name)
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
		if fi, err := tt.Lstat("/var/box/x/" + name); err != nil || fi.Mode() != 0o600 {
			t.Errorf("%s: %v, %v; want 0600", name, fi.Mode(), err)
		}
	}
	if fi, err := tt.Lstat("/var/box/x"); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700", fi.Mode(), err)
	}
	if err := tt.Create("/var/box/x", files); !errors.Is(err, fs.ErrExist) {
		t.Errorf("again: %v, want %v", err, fs.ErrExist)
	}
}
