// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package debian

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPackages(t *testing.T) {
	var previous []string
	for _, p := range Purposes() {
		names, err := Packages(p)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%s: not sorted, or one twice: %v", p, names)
		}
		for _, name := range previous {
			if !slices.Contains(names, name) {
				t.Errorf("%s: %s is missing", p, name)
			}
		}
		previous = names
	}
	if _, err := Packages("holiday"); !errors.Is(err, ErrPurpose) {
		t.Errorf("unknown purpose: %v", err)
	}
}

func TestNotInstalled(t *testing.T) {
	pkgs := []pkg{{"xorriso", ""}, {"age", ""}, {"gcc", ""}, {"qemu-utils", ""}}
	tests := []struct {
		name, answer string
		want         []string
	}{
		{"all", "age installed\ngcc installed\nqemu-utils installed\nxorriso installed\n", nil},
		{"none", "", []string{"age", "gcc", "qemu-utils", "xorriso"}},
		{"removed, its configuration kept", "age config-files\ngcc installed\nqemu-utils installed\nxorriso installed\n", []string{"age"}},
		{"half way", "age installed\ngcc half-configured\nqemu-utils not-installed\nxorriso installed\n", []string{"gcc", "qemu-utils"}},
		{"a name within another", "age-tool installed\ngcc installed\nqemu-utils installed\nxorriso installed\n", []string{"age"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := notInstalled(pkgs, tt.answer); !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestAnyOrigin: a program from elsewhere takes its package's place where that
// is allowed, and nowhere else.
func TestAnyOrigin(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"npm", "gcc"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	pkgs := []pkg{{"npm", "npm"}, {"gcc", "gcc"}, {"nodejs", "node"}}
	if got := notInstalled(pkgs, ""); !slices.Equal(got, []string{"gcc", "nodejs"}) {
		t.Errorf("got %v", got)
	}
}

func TestMissingPrograms(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := missingPrograms(forTest); !errors.Is(err, ErrMissing) {
		t.Errorf("empty PATH: %v", err)
	}
	if err := missingPrograms([]pkg{{"libc6-dev", ""}}); err != nil {
		t.Errorf("a package without a program: %v", err)
	}
}
