// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// open makes a root with some files and links in it.
func open(tb testing.TB) *Target {
	tb.Helper()
	t, err := Open(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { t.Close() })
	return t
}

func (t *Target) host(name string) string { return filepath.Join(t.dir, name) }

func put(tb testing.TB, t *Target, name, content string, mode os.FileMode) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(t.host(name)), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(t.host(name), []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(t.host(name), mode); err != nil {
		tb.Fatal(err)
	}
}

func link(tb testing.TB, t *Target, dest, name string) {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(t.host(name)), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.Symlink(dest, t.host(name)); err != nil {
		tb.Fatal(err)
	}
}

func TestResolve(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/etc/passwd", "guest", 0o644)
	put(tt, t, "/var/lib/cloud/instances/i-1/x", "x", 0o644)
	link(tt, t, "/var/lib/cloud/instances/i-1", "/var/lib/cloud/instance")
	link(tt, t, "../../../../../../etc/passwd", "/var/up")
	link(tt, t, "/proc/self/root", "/abs")
	link(tt, t, "loop2", "/loop1")
	link(tt, t, "loop1", "/loop2")
	link(tt, t, "missing/below", "/dangling")
	link(tt, t, "/var/lib", "/v")
	link(tt, t, "v/cloud", "/c")
	for _, test := range []struct {
		name     string
		follow   string
		noFollow string
		err      error
	}{
		{name: "/", follow: "/", noFollow: "/"},
		{name: "/etc/passwd", follow: "/etc/passwd", noFollow: "/etc/passwd"},
		{name: "//etc/./passwd/", follow: "/etc/passwd", noFollow: "/etc/passwd"},
		{name: "/../../etc/passwd", follow: "/etc/passwd", noFollow: "/etc/passwd"},
		{name: "/var/lib/cloud/instance", follow: "/var/lib/cloud/instances/i-1", noFollow: "/var/lib/cloud/instance"},
		{name: "/var/lib/cloud/instance/x", follow: "/var/lib/cloud/instances/i-1/x", noFollow: "/var/lib/cloud/instances/i-1/x"},
		{name: "/c/instance/new/file", follow: "/var/lib/cloud/instances/i-1/new/file", noFollow: "/var/lib/cloud/instances/i-1/new/file"},
		{name: "/var/up", follow: "/etc/passwd", noFollow: "/var/up"},
		{name: "/abs/etc/shadow", follow: "/proc/self/root/etc/shadow", noFollow: "/proc/self/root/etc/shadow"},
		{name: "/dangling", follow: "/missing/below", noFollow: "/dangling"},
		{name: "/loop1", noFollow: "/loop1", err: syscall.ELOOP},
		{name: "/loop1/x", err: syscall.ELOOP},
		{name: "etc/passwd", err: ErrPath},
		{name: "", err: ErrPath},
		{name: "/etc/\x00passwd", err: ErrPath},
	} {
		got, err := t.Resolve(test.name)
		if !errors.Is(err, test.err) || got != test.follow {
			tt.Errorf("Resolve(%q) = %q, %v; want %q, %v", test.name, got, err, test.follow, test.err)
		}
		if test.noFollow != "" {
			if rel, err := t.resolve(test.name, false); err != nil || "/"+strings.TrimPrefix(rel, ".") != test.noFollow {
				tt.Errorf("resolve(%q, false) = %q, %v; want %q", test.name, rel, err, test.noFollow)
			}
		}
	}
}

// A link may lead to any name; it must never lead out of the root.
func FuzzResolve(f *testing.F) {
	for _, s := range []string{"/etc", "../../../..", "/", "a/../../b", "//x", "self", "."} {
		f.Add(s, "/self/etc")
	}
	outside := f.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("outside"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(tt *testing.T, dest, name string) {
		t, err := Open(tt.TempDir())
		if err != nil {
			tt.Fatal(err)
		}
		defer t.Close()
		if os.Symlink(dest, t.host("self")) != nil {
			return
		}
		for _, n := range []string{name, "/self", "/self" + outside + "/secret", "/" + name} {
			if b, err := t.ReadFile(n); err == nil && string(b) == "outside" {
				tt.Fatalf("%q, with a link to %q, left the root", n, dest)
			}
			if p, err := t.Resolve(n); err == nil && strings.Contains(p+"/", "/../") {
				tt.Fatalf("Resolve(%q) = %q", n, p)
			}
		}
	})
}

func TestErrorsNameTheGuestsPath(tt *testing.T) {
	t := open(tt)
	_, err := t.ReadFile("/no/such/file")
	pe, ok := errors.AsType[*fs.PathError](err)
	if !ok || pe.Path != "/no/such/file" || !errors.Is(err, fs.ErrNotExist) {
		tt.Errorf("got %v", err)
	}
	if strings.Contains(err.Error(), t.Root()) {
		tt.Errorf("%v names the host's directory", err)
	}
}

func TestReadFileLimits(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/full", strings.Repeat("x", maxRead), 0o600)
	put(tt, t, "/over", strings.Repeat("x", maxRead+1), 0o600)
	if b, err := t.ReadFile("/full"); err != nil || len(b) != maxRead {
		tt.Errorf("1 MiB: %d bytes, %v", len(b), err)
	}
	if _, err := t.ReadFile("/over"); !errors.Is(err, ErrTooLarge) {
		tt.Errorf("1 MiB and a byte: %v", err)
	}
	if _, err := t.ReadFile("/"); !errors.Is(err, ErrNotRegular) {
		tt.Errorf("a directory: %v", err)
	}
}

func TestPredicates(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/d/f", "", 0o600)
	link(tt, t, "nowhere", "/dangling")
	link(tt, t, "/d/f", "/link")
	if t.Live() || t.Booted() {
		tt.Error("a directory is taken for the running machine")
	}
	for name, want := range map[string][3]bool{ // exists, directory, regular
		"/d":        {true, true, false},
		"/link":     {true, false, true},
		"/dangling": {true, false, false},
		"/none":     {false, false, false},
	} {
		if got := [3]bool{t.Exists(name), t.IsDir(name), t.IsRegular(name)}; got != want {
			tt.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if s, err := t.Readlink("/link"); err != nil || s != "/d/f" {
		tt.Errorf("Readlink: %q, %v", s, err)
	}
}
