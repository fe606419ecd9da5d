// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

// released makes a directory with the files of a release, of which the programs
// are a few bytes.
func released(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var plugins, tools []string
	for _, p := range platforms {
		for base, files := range map[string][]entry{
			pluginBase(p, "x5.0"): {{pluginBase(p, "x5.0") + p.exe(), 0o755, []byte("plugin")}},
			totpctlBase(p):        {{"totpctl" + p.exe(), 0o755, []byte("tool")}, {"LICENSE", 0o644, []byte("text")}},
		} {
			put(t, dir, base+".zip", files...)
			if strings.HasPrefix(base, "totpctl") {
				tools = append(tools, base+".zip")
			} else {
				plugins = append(plugins, base+".zip")
			}
		}
	}
	if err := os.WriteFile(filepath.Join(dir, pageName()), []byte("page"), 0o600); err != nil {
		t.Fatal(err)
	}
	tools = append(tools, pageName())
	if err := errors.Join(writeSums(dir, pluginSums(), plugins), writeSums(dir, totpctlSums(), tools)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func put(t *testing.T, dir, name string, files ...entry) {
	t.Helper()
	data, err := archive(files)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	here := platform{runtime.GOOS, runtime.GOARCH}
	if !slices.Contains(platforms, here) {
		t.Skip("nothing is released for this machine")
	}
	good := description{Version: version.Version, APIVersion: "x5.0", Provisioners: []string{"totp"}}
	first := pluginBase(platforms[0], "x5.0")
	// resum lists the plugin's archives again as they now are.
	resum := func(t *testing.T, dir string) {
		names, err := filepath.Glob(filepath.Join(dir, "packer-plugin-*.zip"))
		if err != nil {
			t.Fatal(err)
		}
		for i := range names {
			names[i] = filepath.Base(names[i])
		}
		if err := writeSums(dir, pluginSums(), names); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name   string
		says   description
		change func(t *testing.T, dir string)
		want   error
	}{
		{"good", good, func(*testing.T, string) {}, nil},
		{"archive missing", good, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, first+".zip")) }, errMissing},
		{"sums missing", good, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, pluginSums())) }, errMissing},
		{"totpctl missing", good, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, totpctlBase(platforms[3])+".zip")) }, errMissing},
		{"page missing", good, func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, pageName())) }, errMissing},
		{"page altered", good, func(t *testing.T, dir string) { os.WriteFile(filepath.Join(dir, pageName()), []byte("another"), 0o600) }, errSum},
		{"sums cut short", good, func(t *testing.T, dir string) {
			data, _ := os.ReadFile(filepath.Join(dir, pluginSums()))
			os.WriteFile(filepath.Join(dir, pluginSums()), data[:len(data)/2], 0o600)
		}, errContents},
		{"altered archive", good, func(t *testing.T, dir string) {
			put(t, dir, first+".zip", entry{first, 0o755, []byte("another")})
		}, errSum},
		{"wrong name inside", good, func(t *testing.T, dir string) {
			put(t, dir, first+".zip", entry{"packer-plugin-totp", 0o755, []byte("plugin")})
			resum(t, dir)
		}, errContents},
		{"not executable", good, func(t *testing.T, dir string) {
			put(t, dir, first+".zip", entry{first, 0o644, []byte("plugin")})
			resum(t, dir)
		}, errContents},
		{"empty binary", good, func(t *testing.T, dir string) {
			put(t, dir, first+".zip", entry{first, 0o755, nil})
			resum(t, dir)
		}, errContents},
		{"another API version in one name", good, func(t *testing.T, dir string) {
			other := pluginBase(platforms[0], "x5.1")
			os.Remove(filepath.Join(dir, first+".zip"))
			put(t, dir, other+".zip", entry{other, 0o755, []byte("plugin")})
			resum(t, dir)
		}, errStray},
		{"stray file", good, func(t *testing.T, dir string) { os.WriteFile(filepath.Join(dir, "notes.txt"), nil, 0o600) }, errStray},
		{"another version", description{Version: "9.9.9", APIVersion: "x5.0", Provisioners: good.Provisioners}, func(*testing.T, string) {}, errVersion},
		{"a prerelease", description{Version: version.Version + "-dev", APIVersion: "x5.0", Provisioners: good.Provisioners}, func(*testing.T, string) {}, errVersion},
		{"another API version", description{Version: version.Version, APIVersion: "x5.1", Provisioners: good.Provisioners}, func(*testing.T, string) {}, errVersion},
		{"no component", description{Version: version.Version, APIVersion: "x5.0"}, func(*testing.T, string) {}, errVersion},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := released(t)
			tt.change(t, dir)
			err := check(t.Context(), dir, func(_ context.Context, bin string) (description, error) {
				if data, err := os.ReadFile(bin); err != nil || string(data) != "plugin" {
					t.Errorf("asked %q, %v", data, err)
				}
				return tt.says, nil
			})
			if !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}

// The same files give the same archive, in whatever order they come.
func TestArchiveIsReproducible(t *testing.T) {
	a, b := entry{"a", 0o644, []byte("1")}, entry{"b", 0o755, []byte("2")}
	first, err := archive([]entry{a, b})
	if err != nil {
		t.Fatal(err)
	}
	second, err := archive([]entry{b, a})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two archives of the same files differ")
	}
}

func TestCheckSize(t *testing.T) {
	sizes := func(plain, packed int64) []agentSize {
		return []agentSize{{"amd64", plain, packed}, {"arm64", 7_000_000, 2_800_000}}
	}
	log := "# Changelog\n\n## Unreleased\n\n" + sizeLine(sizes(7_500_000, 3_000_000)) + "\n\n## 0.0.1\n\n" + sizeLine(sizes(1000, 1000)) + "\n"
	for _, tt := range []struct {
		name string
		now  []agentSize
		log  string
		want error
	}{
		{"the same", sizes(7_500_000, 3_000_000), log, nil},
		{"smaller", sizes(7_000_000, 2_000_000), log, nil},
		{"five percent more", sizes(7_875_000, 3_150_000), log, nil},
		{"more than that", sizes(7_876_000, 3_000_000), log, errGrown},
		{"more than that when packed", sizes(7_500_000, 3_151_000), log, errGrown},
		{"beyond the limit", sizes(maxAgent+1, 3_000_000), log, errTooLarge},
		{"beyond the limit when packed", sizes(7_500_000, maxPacked+1), log, errTooLarge},
		{"nothing stated", sizes(7_500_000, 3_000_000), "# Changelog\n", errNoSize},
		{"one not stated", sizes(7_500_000, 3_000_000), "- Size of the agent: amd64 7500 kB (packed 3000 kB).\n", errNoSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := checkSize(tt.now, tt.log); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
}
