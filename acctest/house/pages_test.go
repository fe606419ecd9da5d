// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package house

import (
	"fmt"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// pages are the Markdown files that people read, but for those that are made of
// others.
func pages(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, name := range files(t) {
		if ext := path.Ext(name); (ext == ".md" || ext == ".mdx") && !strings.HasPrefix(name, ".web-docs/") && !strings.HasPrefix(name, "docs-partials/") {
			names = append(names, name)
		}
	}
	return names
}

// fill puts real recipients in the place of those that a page leaves open.
func fill(t *testing.T, text string) string {
	t.Helper()
	_, classic, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	_, hybrid, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("age1pq1…", hybrid, "age1pq1...", hybrid, "age1…", classic, "age1...", classic).Replace(text)
}

// TestYAML: what the pages and the examples show of YAML is a policy of some layer,
// a part of one, a cloud-config with such a layer in it, or none of our business
// and YAML all the same.
func TestYAML(t *testing.T) {
	policies, configs := 0, 0
	try := func(where, text string) {
		text = fill(t, text)
		var doc map[string]any
		if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
			t.Errorf("%s: %v", where, err)
			return
		}
		switch first, _, _ := strings.Cut(text, "\n"); {
		case strings.HasPrefix(first, "#cloud-config"):
			configs++
			checkConfig(t, where, doc)
		case doc["version"] != nil:
			policies++
			checkPolicy(t, where, text)
		case doc["channels"] != nil, doc["sshd"] != nil, doc["escrow_recipients"] != nil:
			policies++
			checkPolicy(t, where, "version: 1\n"+text)
		}
	}
	for _, name := range pages(t) {
		for _, f := range fences(read(t, name)) {
			if f.lang == "yaml" || f.lang == "yml" {
				try(fmt.Sprintf("%s:%d", name, f.line), f.text)
			}
		}
	}
	for _, name := range files(t) {
		if ext := path.Ext(name); strings.HasPrefix(name, "examples/") && (ext == ".yaml" || ext == ".yml") {
			try(name, string(read(t, name)))
		}
	}
	if policies < 15 || configs < 2 {
		t.Errorf("found %d policies and %d cloud-configs, which cannot be all", policies, configs)
	}
}

// checkPolicy accepts what some layer may say.
func checkPolicy(t *testing.T, where, text string) {
	t.Helper()
	var errs []string
	for _, layer := range []policy.Layer{policy.Image, policy.Vendor, policy.Instance} {
		_, err := policy.Parse(layer, where, []byte(text))
		if err == nil {
			return
		}
		errs = append(errs, fmt.Sprintf("as the %s layer: %v", layer, err))
	}
	t.Errorf("%s is a policy of no layer:\n%s", where, strings.Join(errs, "\n"))
}

// checkConfig looks at the layers in a cloud-config.
func checkConfig(t *testing.T, where string, doc map[string]any) {
	t.Helper()
	var config struct {
		WriteFiles []struct{ Path, Content string } `yaml:"write_files"`
		TOTP       any                              `yaml:"totp"`
	}
	text, err := yaml.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	check := func(vendor bool, text string) {
		if _, err := cloudinit.Parse(where, []byte(text), vendor); err != nil {
			t.Error(err)
		}
	}
	for _, f := range config.WriteFiles {
		switch f.Path {
		case "/var/lib/cloud/instance/totp-instance.yaml":
			check(false, f.Content)
		case "/var/lib/cloud/instance/totp-vendor.yaml":
			check(true, f.Content)
		}
	}
	if config.TOTP != nil {
		text, err := yaml.Marshal(config.TOTP)
		if err != nil {
			t.Fatal(err)
		}
		check(false, string(text))
	}
}

// commandLine is a call of one of our programs: in a block, after a prompt, sudo or
// the key of a unit; or in a text, between backquotes.
var (
	commandLine   = regexp.MustCompile(`^(?:\$ |# )?(?:sudo |ExecStart=)?(?:[\w./]*/)?(totpctl|totp-agent)((?: .*)?)$`)
	inText        = regexp.MustCompile("`(?:sudo )?(totpctl|totp-agent)( [^`]*)`")
	endOfCommand  = regexp.MustCompile(` [|>&#;]|[;|]$| \)`)
	flagsOfOthers = regexp.MustCompile(`"[^"]*"|'[^']*'`)
	flagInHelp    = regexp.MustCompile(`(?m)(?:^|[ ,\[])(--?[a-zA-Z][a-z-]*)`)
)

// TestCommands: the commands of ours that the pages show exist, and so do their
// options.
func TestCommands(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/totpctl", "./cmd/totp-agent")
	build.Dir = root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	known := map[string][]string{} // by program and command; nil: there is none
	options := func(program, command string) []string {
		key := program + " " + command
		if _, ok := known[key]; !ok {
			cmd := exec.Command(filepath.Join(dir, program), command, "--help")
			out, err := cmd.CombinedOutput()
			if err == nil {
				known[key] = []string{"--help", "-h"}
				for _, m := range flagInHelp.FindAllStringSubmatch(string(out), -1) {
					known[key] = append(known[key], m[1])
				}
			} else {
				known[key] = nil
			}
		}
		return known[key]
	}
	n := 0
	check := func(where, program, rest string) {
		n++
		if at := endOfCommand.FindStringIndex(rest); at != nil {
			rest = rest[:at[0]]
		}
		words := strings.Fields(flagsOfOthers.ReplaceAllString(rest, "x"))
		if len(words) == 0 || strings.HasPrefix(words[0], "-") || words[0] == "COMMAND" {
			return
		}
		flags := options(program, words[0])
		if flags == nil {
			t.Errorf("%s: %s has no %q", where, program, words[0])
			return
		}
		for _, w := range words[1:] {
			name, _, _ := strings.Cut(strings.Trim(w, "[]…."), "=")
			if !strings.HasPrefix(name, "-") || name == "-" {
				continue
			}
			// The agent's help has one dash where its users may write two.
			if !slices.Contains(flags, name) && !(program == "totp-agent" && slices.Contains(flags, name[1:])) {
				t.Errorf("%s: %s %s has no option %s", where, program, words[0], name)
			}
		}
	}
	for _, name := range pages(t) {
		text := string(read(t, name))
		for _, f := range fences([]byte(text)) {
			whole := strings.ReplaceAll(f.text, "\\\n", " ")
			for i, line := range strings.Split(whole, "\n") {
				if m := commandLine.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
					check(fmt.Sprintf("%s:%d", name, f.line+i+1), m[1], m[2])
				}
			}
		}
		for _, m := range inText.FindAllStringSubmatch(text, -1) {
			check(name, m[1], m[2])
		}
	}
	if n < 50 {
		t.Errorf("found %d commands, which cannot be all", n)
	}
}
