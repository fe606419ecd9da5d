// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// TestUserDataExample runs the example of the data source with real Packer: the
// owner's document is in the result.
func TestUserDataExample(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../examples/user-data")); err != nil {
		t.Fatal(err)
	}
	doc := runUserData(t, dir, "out/user-data", "out/ticket.json")
	own, err := os.ReadFile(filepath.Join(dir, "web.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc, string(own)) {
		t.Errorf("the document of one's own is not there as it was:\n%s", doc)
	}
}

// required is what the page of the data source leaves to that of the plugin.
const required = `packer {
  required_plugins {
    totp = {
      source  = "github.com/packer-plugin-totp/totp"
      version = ">= 0.1.0"
    }
  }
}
build {
  sources = ["source.file.user-data", "source.file.ticket"]
}
`

// TestUserDataPage runs the example on the page of the data source.
func TestUserDataPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/datasources/userdata.mdx")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "\n```hcl\n")
	example, _, ok := strings.Cut(example, "\n```\n")
	if !ok {
		t.Fatal("there is no example")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"example": example + "\n", "required": required} {
		if err := os.WriteFile(filepath.Join(dir, name+".pkr.hcl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	runUserData(t, dir, "alice.user-data", "alice.ticket")
}

// printing is a build that prints both, line by line.
const printing = `source "null" "print" {
  communicator = "none"
}
build {
  sources = ["source.null.print"]
  provisioner "shell-local" {
    inline = ["cat <<'X'\n${local.user_data}\nX", "cat <<'X'\nticket=${local.ticket}\nX"]
  }
}
`

// runUserData builds the template of a directory, and returns the document. Ticket and
// document belong together, and neither ticket nor token stand in what Packer says
// or logs, although the build prints them.
func runUserData(t *testing.T, dir, docFile, ticketFile string) string {
	t.Helper()
	p, err := realPacker()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "printing.pkr.hcl"), []byte(printing), 0o600); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	logFile := filepath.Join(t.TempDir(), "packer.log")
	if err := p.RunLogged(t.Context(), dir, logFile, &out, "build", "-color=false", "."); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	doc, text := read(filepath.Join(dir, docFile)), read(filepath.Join(dir, ticketFile))
	ticket, err := seal.ParseTicket([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`token: (\S{22})\n`).FindStringSubmatch(doc)
	if m == nil {
		t.Fatalf("no token in\n%s", doc)
	}
	token, err := base64.RawURLEncoding.DecodeString(m[1])
	if err != nil {
		t.Fatal(err)
	}
	if len(ticket.Users) != 1 || ticket.Users[0].Token != seal.HashToken(card.TokenMAC(token, "alice")) {
		t.Error("document and ticket do not belong together")
	}
	for where, said := range map[string]string{"output": out.String(), "log": read(logFile)} {
		for _, secret := range []string{m[1], ticket.Users[0].Token} {
			if strings.Contains(said, secret) {
				t.Errorf("in Packer's %s is %q", where, secret)
			}
		}
		// What was looked through is the right text.
		for _, want := range []string{"token: <sensitive>", "ticket=<sensitive>"} {
			if !strings.Contains(said, want) {
				t.Errorf("in Packer's %s is no %q:\n%s", where, want, said)
			}
		}
	}
	if log := read(logFile); !strings.Contains(log, "packer-plugin-totp") {
		t.Errorf("the plugin has no part in the log:\n%s", log)
	}
	return doc
}
