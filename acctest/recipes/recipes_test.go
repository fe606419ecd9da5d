// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package recipes_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A recipe is what docs/recipes.md says under a heading, and how a test does it.
type recipe struct {
	heading string                  // or its beginning
	start   func(*testing.T, *site) // starts the server

	again  string // what a second envelope of the same name comes to, if the server has no attempt on record
	unseen string // and the same envelope, after an attempt whose end was not seen
}

var all = []recipe{
	{"S3", startS3, deliver.Tampered, deliver.Unconfirmed},
	{"Azure", startAzure, deliver.Failed, deliver.Failed}, // Azurite; Azure's own code is UnauthorizedBlobOverwrite
	{"webhook", startWebhook, deliver.Failed, deliver.Delivered},
	{"nginx", startNginx, deliver.Tampered, deliver.Unconfirmed},
	{"Vault", startVault, deliver.Failed, deliver.Failed},
}

// TestRecipes: as the page says it, an envelope arrives and opens, nothing is
// overwritten, and the server that sent it knows what has become of it.
func TestRecipes(t *testing.T) {
	for _, r := range all {
		t.Run(r.heading, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, r.heading)
			r.start(t, s)

			m := s.machine("web-1")
			if got := m.pass(); got != deliver.Delivered {
				t.Fatalf("%s: %s\n%s", got, m.lastError(), s.said())
			}
			first := m.stored()
			m.opens(first)

			// As if it were another server's: this one remembers nothing.
			m.forget()
			other := m.reseal()
			if got := m.pass(); got != r.again {
				t.Errorf("another one under its name: %s, want %s: %s", got, r.again, m.lastError())
			}
			if !bytes.Equal(m.stored(), first) || bytes.Equal(first, other) {
				t.Error("the first envelope was overwritten")
			}

			m = s.machine("web-2")
			s.wire.cut(func() bool { return m.stored() != nil })
			if got := m.pass(); got != deliver.Failed {
				t.Errorf("an attempt that was cut: %s, want %s", got, deliver.Failed)
			}
			s.wire.cut(nil)
			if got := m.pass(); got != r.unseen {
				t.Errorf("after an attempt that was cut: %s, want %s: %s", got, r.unseen, m.lastError())
			}
			m.opens(m.stored())
		})
	}
}

// TestNginxStrangers: nobody puts anything into the directory of another server, nor
// without a certificate of the CA.
func TestNginxStrangers(t *testing.T) {
	s := newSite(t, "nginx")
	startNginx(t, s)
	own := s.files
	for name, ca := range map[string]*authority{"web-2": s.ca, "web-1": newAuthority(t)} {
		s.files = func(m *machine) map[string]string {
			files := own(m)
			cert, key := ca.issue(t, name)
			files[target.CloudInstance+"/totp-client.pem"], files[target.CloudInstance+"/totp-client.key"] = cert, key
			return files
		}
		m := s.machine("web-1")
		if got := m.pass(); got != deliver.Failed || m.stored() != nil {
			t.Errorf("with a certificate of %s: %s, %d bytes are stored: %s", name, got, len(m.stored()), m.lastError())
		}
	}
}

// TestPage: the page's recipes are those that are tested, and what it shows of the
// programs that sign is in the programs.
func TestPage(t *testing.T) {
	page := read(t, page)
	var headings []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)`).FindAllStringSubmatch(page, -1) {
		headings = append(headings, m[1])
	}
	var tested []string
	for _, r := range all {
		tested = append(tested, r.heading)
	}
	if got, want := strings.Join(headings, " "), strings.Join(tested, " "); got != want {
		t.Errorf("the page has %s, tested are %s", got, want)
	}
	for _, of := range []struct{ heading, lang, file string }{{"S3", "go", "s3/main.go"}, {"Azure", "js", "azure/sign.mjs"}} {
		if text := read(t, of.file); !strings.Contains(text, fence(t, of.heading, of.lang)) {
			t.Errorf("what the page shows under %s is not in %s", of.heading, of.file)
		}
	}
	if !strings.Contains(read(t, "../../docs/delivery-channels.md"), "(recipes.md)") {
		t.Error("docs/delivery-channels.md does not lead to the recipes")
	}
}

const page = "../../docs/recipes.md"

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// fence returns the page's one block of a language under a heading.
func fence(t *testing.T, heading, lang string) string {
	t.Helper()
	_, section, _ := strings.Cut(read(t, page), "\n## "+heading)
	section, _, _ = strings.Cut(section, "\n## ")
	parts := strings.Split(section, "\n```"+lang+"\n")
	if len(parts) != 2 {
		t.Fatalf("%d blocks of %s under %q, want one", len(parts)-1, lang, heading)
	}
	text, _, _ := strings.Cut(parts[1], "```")
	return text
}

// filled puts a test's names in the place of the page's, each of which has to be
// in the text.
func filled(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("there is no %q in\n%s", pairs[i], text)
		}
		text = strings.ReplaceAll(text, pairs[i], pairs[i+1])
	}
	return text
}
