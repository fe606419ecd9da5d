// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
)

// TestUserDataPage runs what docs/user-data.md says to run, with the files that
// it speaks of.
func TestUserDataPage(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the page's commands are for a shell")
	}
	page, err := os.ReadFile("../../docs/user-data.md")
	check(t, err)
	dir := t.TempDir()
	files := map[string]string{
		"alice.pub":        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@laptop\n",
		"alice.txt":        "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z\n",
		"web.yaml":         "#cloud-config\npackages: [nginx]\n",
		"totp-report.json": `{"version": 1, "policy": "version: 1\n"}`,
	}
	for _, m := range regexp.MustCompile("(?s)```yaml\n# ([a-z.]+)\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		files[m[1]] = m[2]
	}
	for name, text := range files {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	n := 0
	for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		n++
		cmd := exec.Command("sh", "-ec", m[1])
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", m[1], err, out)
		}
	}
	if n < 5 {
		t.Errorf("%d commands found", n)
	}
	for _, name := range []string{"user-data", "alice.user-data", "web.user-data", "web-1.user-data", "alice.ticket", "seed.iso", "vendor-data"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err != nil || st.Size() == 0 {
			t.Errorf("%s was not made: %v", name, err)
		} else if st.Mode().Perm() != 0o600 {
			t.Errorf("%s can be read by others: %v", name, st.Mode())
		}
	}
	if doc, err := os.ReadFile(filepath.Join(dir, "user-data")); err != nil || len(doc) > 2048 {
		t.Errorf("a document for one user has %d bytes (%v)", len(doc), err)
	}
	for _, p := range cloudinit.Providers() {
		if !regexp.MustCompile(fmt.Sprintf("(?m)^\\|[^|]*`%s`", p.Name)).Match(page) {
			t.Errorf("the page does not say how to give a document to %s", p.Name)
		}
	}
}

// TestPages: no page has a document, in which there may be a token, written for
// others to read as well, nor a command that fails as soon as there are two files.
func TestPages(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	check(t, err)
	hosts, err := filepath.Glob("../../docs/hosts/*.md")
	check(t, err)
	for _, page := range append(append(pages, hosts...), "../../README.md", "userdata.go", "open.go") {
		text, err := os.ReadFile(page)
		check(t, err)
		for _, m := range regexp.MustCompile(`totpctl user-data [^`+"`"+`\n]*>|totpctl open [^|`+"`"+`\n]*\*`).FindAllString(string(text), -1) {
			t.Errorf("%s: %s", page, m)
		}
	}
}

// TestHostPages makes the keys that the pages of docs/hosts say to make, without a
// warning. Their documents are made by acctest/house, which knows each page's image.
func TestHostPages(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the pages' commands are for a shell")
	}
	pages, err := filepath.Glob("../../docs/hosts/*.md")
	check(t, err)
	n := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		check(t, err)
		dir := t.TempDir()
		for _, m := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
			for _, line := range regexp.MustCompile(`(?m)^totpctl keygen .*$`).FindAllString(m[1], -1) {
				n++
				cmd := exec.Command("sh", "-ec", line)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir)
				if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "warning") {
					t.Errorf("%s: %s: %v\n%s", filepath.Base(page), line, err, out)
				}
			}
		}
	}
	if n < 2 {
		t.Errorf("%d commands found", n)
	}
}
