// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package house

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
)

// channelTable is the part of docs/hosts/README.md that is made from the table of
// package cloudinit.
func channelTable() string {
	var b strings.Builder
	kinds := cloudinit.ChannelKinds()
	b.WriteString("| `--for` | `" + strings.Join(kinds, "` | `") + "` |\n|" + strings.Repeat("---|", len(kinds)+1) + "\n")
	for _, p := range cloudinit.Providers() {
		b.WriteString("| `" + p.Name + "` |")
		for _, kind := range kinds {
			b.WriteString(" " + p.Route(kind).Availability.String() + " |")
		}
		b.WriteByte('\n')
	}
	b.WriteString("\nWho can read what comes out:\n\n| `--for` | channel | read by |\n|---|---|---|\n")
	common := map[string]bool{}
	for _, kind := range kinds {
		if r := (cloudinit.Provider{}).Route(kind); r.Reader != "" {
			common[kind] = true
			b.WriteString("| each | `" + kind + "` | " + r.Reader + " |\n")
		}
	}
	for _, p := range cloudinit.Providers() {
		for _, kind := range kinds {
			if r := p.Route(kind); r.Reader != "" && !common[kind] {
				b.WriteString("| `" + p.Name + "` | `" + kind + "` | " + r.Reader + " |\n")
			}
		}
	}
	return b.String()
}

// TestChannelTable: the table of docs/hosts is the one that the programs check
// documents against.
func TestChannelTable(t *testing.T) {
	const page, begin, end = "docs/hosts/README.md", "<!-- channels: made from package cloudinit, checked by a test -->\n", "<!-- /channels -->"
	before, rest, ok := strings.Cut(string(read(t, page)), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between its marks", page)
	}
	want := "\n" + channelTable() + "\n"
	if table == want {
		return
	}
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(filepath.Join(root(), filepath.FromSlash(page)), []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Errorf("%s (UPDATE_GOLDEN=1 writes it): the table is not that of package cloudinit, which is\n%s", page, want)
}

// words splits a command as a shell does, without expansions.
func words(command string) []string {
	var out []string
	for _, w := range regexp.MustCompile(`(?:[^\s"']|"[^"]*"|'[^']*')+`).FindAllString(command, -1) {
		out = append(out, strings.Trim(w, `"'`))
	}
	return out
}

var (
	imageInHCL = regexp.MustCompile(`channel\s*\{\s*type\s*=\s*"([^"]+)"`)
	withValue  = []string{"-o", "--output", "--ticket", "--seed-iso", "--seed-dir"}
)

// pageImage returns the policy of the image that a page shows, or a default one.
func pageImage(page []byte) string {
	for _, f := range fences(page) {
		switch {
		case f.lang == "hcl" && strings.Contains(f.text, `provisioner "totp"`):
			var channels []string
			for _, m := range imageInHCL.FindAllStringSubmatch(f.text, -1) {
				channels = append(channels, "  - {type: "+m[1]+"}\n")
			}
			return "version: 1\nchannels:\n" + strings.Join(channels, "")
		case f.lang == "yaml" && strings.HasPrefix(f.text, "version: 1\n") && !strings.Contains(f.text, "users:"):
			return f.text
		}
	}
	return "version: 1\n"
}

// pagePolicy returns the policy file of that name that a page shows.
func pagePolicy(page []byte, name string) string {
	found := ""
	for _, f := range fences(page) {
		if f.lang != "yaml" || !strings.Contains(f.text, "users:") || strings.HasPrefix(f.text, "#cloud-config") {
			continue
		}
		if strings.HasPrefix(f.text, "# "+name+"\n") || found == "" && strings.HasPrefix(f.text, "version: 1\n") {
			found = f.text
		}
	}
	return found
}

// TestUserDataCommands runs each call of totpctl user-data that the pages show, with
// the image, the keys and the files of its page: it makes a document, and nothing in it
// keeps its users out.
func TestUserDataCommands(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "totpctl")
	build := exec.Command("go", "build", "-o", bin, "./cmd/totpctl")
	build.Dir = root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const sshKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@laptop\n"
	n := 0
	for _, name := range pages(t) {
		page := read(t, name)
		var commands []string
		for _, f := range fences(page) {
			for line := range strings.Lines(strings.ReplaceAll(f.text, "\\\n", " ")) {
				if m := commandLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil && m[1] == "totpctl" {
					commands = append(commands, m[2])
				}
			}
		}
		for _, m := range inText.FindAllStringSubmatch(string(page), -1) {
			if m[1] == "totpctl" && strings.Contains(m[2], ".yaml") {
				commands = append(commands, m[2])
			}
		}
		for _, command := range commands {
			args := words(fill(t, command))
			if len(args) < 3 || args[0] != "user-data" {
				continue
			}
			n++
			dir := t.TempDir()
			recipient := "age1…"
			if strings.Contains(string(page), "keygen --pq -o alice-pq.key > alice.txt") {
				recipient = "age1pq1…"
			}
			report, err := json.Marshal(map[string]any{"version": 1, "openssh": "9.2", "policy": pageImage(page)})
			if err != nil {
				t.Fatal(err)
			}
			content := map[string]string{
				"alice.pub": sshKey, "alice.txt": fill(t, recipient) + "\n", "totp-report.json": string(report),
				"web.yaml": string(read(t, "examples/user-data/web.yaml")),
			}
			run := []string{}
			for i := 0; i < len(args); i++ {
				if args[i] == "--policy" && i+1 < len(args) {
					content[args[i+1]] = fill(t, pagePolicy(page, args[i+1]))
				}
				if slices.Contains(withValue, args[i]) {
					if args[i] == "--ticket" {
						run = append(run, "--ticket", "out.ticket")
					}
					i++
					continue
				}
				if args[i] == "--hostname" {
					i++
					continue
				}
				run = append(run, args[i])
			}
			for file, text := range content {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cmd := exec.Command(bin, run...)
			cmd.Dir = dir
			var errOut strings.Builder
			cmd.Stderr = &errOut
			out, err := cmd.Output()
			if err != nil || !strings.HasPrefix(string(out), "#cloud-config") || strings.Contains(errOut.String(), "warning:") {
				t.Errorf("%s: totpctl%s: %v\n%s", name, command, err, errOut.String())
			}
		}
	}
	if n < 14 {
		t.Errorf("found %d commands, which cannot be all", n)
	}
}

// TestHandWritten: the cloud-configs that the pages and examples show by hand let
// their users log in, as those of totpctl do: root with its keys as they are, and
// all other users with a key.
func TestHandWritten(t *testing.T) {
	n := 0
	try := func(where, text string) {
		if !strings.HasPrefix(text, "#cloud-config") {
			return
		}
		var doc struct {
			DisableRoot *bool `yaml:"disable_root"`
			Users       []yaml.Node
			WriteFiles  []struct{ Path, Content string } `yaml:"write_files"`
		}
		if err := yaml.Unmarshal([]byte(fill(t, text)), &doc); err != nil {
			t.Errorf("%s: %v", where, err)
			return
		}
		keys := map[string]int{}
		for _, u := range doc.Users {
			var account struct {
				Name string
				Keys []string `yaml:"ssh_authorized_keys"`
			}
			if u.Decode(&account) == nil {
				keys[account.Name] = len(account.Keys)
			}
		}
		for _, f := range doc.WriteFiles {
			if f.Path != "/var/lib/cloud/instance/totp-instance.yaml" {
				continue
			}
			n++
			s, err := cloudinit.Parse(where, []byte(f.Content), false)
			if err != nil {
				t.Error(err)
			}
			for _, u := range s.Users {
				switch {
				case u.Name == "root" && (doc.DisableRoot == nil || *doc.DisableRoot):
					t.Errorf("%s: root is enrolled, and disable_root is not false", where)
				case u.Name != "root" && doc.Users != nil && keys[u.Name] == 0:
					t.Errorf("%s: %s is enrolled and has no key", where, u.Name)
				}
			}
		}
	}
	for _, name := range pages(t) {
		for _, f := range fences(read(t, name)) {
			if f.lang == "yaml" {
				try(fmt.Sprintf("%s:%d", name, f.line), f.text)
			}
		}
	}
	for _, name := range files(t) {
		if strings.HasPrefix(name, "examples/") && strings.HasSuffix(name, ".yaml") {
			try(name, string(read(t, name)))
		}
	}
	if n < 4 {
		t.Errorf("found %d documents, which cannot be all", n)
	}
}

// TestProvidersOfPages: the pages name only providers that the table has.
func TestProvidersOfPages(t *testing.T) {
	for _, name := range pages(t) {
		for _, m := range regexp.MustCompile(`--for ([a-z0-9]+)`).FindAllStringSubmatch(string(read(t, name)), -1) {
			if _, ok := cloudinit.FindProvider(m[1]); !ok && m[1] != "list" {
				t.Errorf("%s: --for %s: no such provider", name, m[1])
			}
		}
	}
}
