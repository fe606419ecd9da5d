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

// TestUserDataExample runs the example of the data source with real Packer:
// document and ticket belong together, and Packer says neither token nor ticket.
func TestUserDataExample(t *testing.T) {
	t.Parallel()
	p, err := realPacker()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../examples/user-data")); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := p.Run(t.Context(), dir, &out, "build", "-color=false", "."); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	doc, err := os.ReadFile(filepath.Join(dir, "out/user-data"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "out/ticket.json"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadFile(filepath.Join(dir, "web.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(doc), string(own)) {
		t.Errorf("the document of one's own is not there as it was:\n%s", doc)
	}
	ticket, err := seal.ParseTicket(text)
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`token: (\S{22})\n`).FindSubmatch(doc)
	if m == nil {
		t.Fatalf("no token in\n%s", doc)
	}
	token, err := base64.RawURLEncoding.DecodeString(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	if len(ticket.Users) != 1 || ticket.Users[0].Token != seal.HashToken(card.TokenMAC(token, "alice")) {
		t.Error("document and ticket do not belong together")
	}
	for _, secret := range []string{string(m[1]), ticket.Users[0].Token} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("Packer has said %q", secret)
		}
	}
}
