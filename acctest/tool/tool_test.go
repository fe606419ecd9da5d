// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package tool

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// put makes a file in a directory.
func put(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

// TestGo: a program is built once, and anew when it or the module's versions are
// others.
func TestGo(t *testing.T) {
	source, cache := t.TempDir(), t.TempDir()
	put(t, source, "go.mod", "module example.com/x\n\ngo 1.21\n")
	put(t, source, "go.sum", "")
	put(t, source, "main.go", "package main\n\nfunc main() { println(\"first\") }\n")
	say := func() (program, text string) {
		program, err := Go(t.Context(), source, cache, "example.com/x", io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program).CombinedOutput()
		if err != nil {
			t.Fatal(err)
		}
		return program, strings.TrimSpace(string(out))
	}
	first, text := say()
	if again, text := say(); again != first || text != "first" {
		t.Errorf("%s says %q, want %s again", again, text, first)
	}
	put(t, source, "main.go", "package main\n\nfunc main() { println(\"second\") }\n")
	second, now := say()
	if second == first || now != "second" || text != "first" {
		t.Errorf("%s says %q", second, now)
	}
	put(t, source, "go.sum", "\n")
	if other, _ := say(); other == second {
		t.Errorf("with other versions it is %s still", other)
	}
	put(t, source, "main.go", "package main\n\nfunc main() { nothing() }\n")
	if _, err := Go(t.Context(), source, cache, "example.com/x", io.Discard); err == nil || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("what cannot be built: %v", err)
	}
}

// TestNPM: npm is asked to install what the lock file has and to run nothing of it.
func TestNPM(t *testing.T) {
	bin, source, cache := t.TempDir(), t.TempDir(), t.TempDir()
	put(t, bin, "npm", "#!/bin/sh\ntest -e package.json -a -e package-lock.json\necho \"$*\" >asked\n")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	put(t, source, "package.json", "{}")
	put(t, source, "package-lock.json", "{}")
	dir, err := NPM(t.Context(), source, cache, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := os.ReadFile(filepath.Join(dir, "asked"))
	if err != nil || !strings.HasPrefix(string(asked), "ci --ignore-scripts ") {
		t.Errorf("asked %q, %v", asked, err)
	}
	put(t, source, "package-lock.json", "{ }")
	if other, err := NPM(t.Context(), source, cache, io.Discard); err != nil || other == dir {
		t.Errorf("another lock file: %s, %v", other, err)
	}
}

// TestDebian: a package is unpacked, and where it cannot be had the lists of
// packages are fetched first.
func TestDebian(t *testing.T) {
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		t.Skip("this is no Debian system")
	}
	bin, cache := t.TempDir(), t.TempDir()
	put(t, bin, "apt-get", "#!/bin/sh\ncase $* in *update*) touch "+bin+"/updated ;; *) test -e "+bin+"/updated && touch x.deb ;; esac\n")
	put(t, bin, "dpkg-deb", "#!/bin/sh\ntest -e \"$2\" && mkdir \"$3\"\n")
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	dir, err := Debian(t.Context(), cache, "x", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		t.Error(err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(dir), "*"))
	if err != nil || len(left) != 2 { // it and its lock
		t.Errorf("left %q, %v", left, err)
	}
}
