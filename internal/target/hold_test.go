// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"testing"
)

// Everything does the same whether the directories on the way are held or not.
func TestHold(t *testing.T) {
	for _, hold := range [][]string{nil, {"/var/lib/x"}, {"/var/lib", "/var/lib/x", "/var/lib/x/deep"}, {"/"}, {"/abs/x"}} {
		tt := open(t)
		for _, d := range []string{"/var/lib/x/deep", "/var/lib/y"} {
			if err := tt.Mkdir(d, 0o700); err != nil {
				t.Fatal(err)
			}
		}
		if err := tt.Symlink("/var/lib", "/abs"); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(tt.Hold(hold...), tt.Hold(hold...)); err != nil {
			t.Fatalf("%q: %v", hold, err)
		}
		err := errors.Join(
			tt.WriteFile("/var/lib/x/a", []byte("1"), 0o600),
			writeLater(tt, "/abs/x/b", "2", 0o400),
			tt.Create("/var/lib/x/deep/c", map[string][]byte{"f": []byte("3")}),
			tt.Mkdir("/var/lib/x/d", 0o750),
			tt.Symlink("a", "/var/lib/x/l"),
			tt.Rename("/var/lib/x/a", "/var/lib/y/a"),
			tt.Move("/abs/x/deep/c", "/var/lib/x/c"),
			tt.Chmod("/var/lib/x/b", 0o640),
			tt.Remove("/var/lib/x/l"),
			tt.SyncDir("/var/lib/x"), tt.Sync("/", "/var/lib/x", "/nowhere"),
		)
		if err != nil {
			t.Errorf("%q: %v", hold, err)
		}
		for name, want := range map[string]fs.FileMode{
			"/var/lib/y/a": 0o600, "/var/lib/x/b": 0o640, "/var/lib/x/c/f": 0o600, "/var/lib/x/d": fs.ModeDir | 0o750, "/var/lib/x": fs.ModeDir | 0o755,
		} {
			if fi, err := tt.Lstat(name); err != nil || fi.Mode() != want {
				t.Errorf("%q: %s: %v, %v; want %v", hold, name, fi, err, want)
			}
			if fi, err := os.Lstat(filepath.Join(tt.Root(), name)); err != nil || fi.Mode() != want {
				t.Errorf("%q: %s on the host: %v, %v; want %v", hold, name, fi, err, want)
			}
		}
		es, err := tt.ReadDir("/var/lib/x")
		if err != nil || len(es) != 4 {
			t.Errorf("%q: %v, %v; want b, c, d, deep", hold, es, err)
		}
		if err := errors.Join(tt.RemoveAll("/var/lib/y"), tt.Close()); err != nil {
			t.Errorf("%q: %v", hold, err)
		}
	}
}

// A held directory that is gone makes errors, not files in a place that nobody
// sees; after a release its successor is found.
func TestHoldRemoved(t *testing.T) {
	tt := open(t)
	dir := "/var/lib/x"
	if err := errors.Join(tt.Mkdir(dir, 0o700), tt.Hold(dir)); err != nil {
		t.Fatal(err)
	}
	host := filepath.Join(tt.Root(), dir)
	if err := errors.Join(os.Remove(host), os.Mkdir(host, 0o700)); err != nil {
		t.Fatal(err)
	}
	if err := tt.WriteFile(dir+"/a", nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want %v", err, fs.ErrNotExist)
	}
	if err := errors.Join(tt.Release(), tt.WriteFile(dir+"/a", nil, 0o600)); err != nil {
		t.Error(err)
	}
	if !tt.Exists(dir + "/a") {
		t.Error("the file is not there")
	}
}

// A link inside the held directory does not lead out of the root.
func TestHoldStaysInside(t *testing.T) {
	tt := open(t)
	if err := errors.Join(tt.Mkdir("/var/lib", 0o755), tt.Hold("/var/lib"), tt.Symlink("../../../../etc", "/var/lib/out")); err != nil {
		t.Fatal(err)
	}
	if b, err := tt.ReadFile("/var/lib/out/passwd"); err == nil {
		t.Errorf("read %d bytes of the host's passwd", len(b))
	}
}

// writeLater is WriteFile in its parts.
func writeLater(t *Target, name, content string, mode fs.FileMode) error {
	p, err := t.Prepare(name, []byte(content), mode)
	if err != nil {
		return err
	}
	return errors.Join(t.Sync(path.Dir(name)), p.Commit(), t.SyncDir(path.Dir(name)))
}

func TestDiscard(t *testing.T) {
	tt := open(t)
	if err := tt.Mkdir("/var/x", 0o700); err != nil {
		t.Fatal(err)
	}
	p, err := tt.Prepare("/var/x/a", []byte("1"), 0o400)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Discard(); err != nil {
		t.Error(err)
	}
	// What has taken the name in between keeps it.
	if p, err = tt.Prepare("/var/x/b", []byte("1"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := tt.Mkdir("/var/x/b", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err == nil {
		t.Error("a file takes the name of a directory")
	}
	if es, err := tt.ReadDir("/var/x"); err != nil || len(es) != 1 || !es[0].IsDir() {
		t.Errorf("left %v, %v; want the directory", es, err)
	}
}
