// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"

	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page/pagetest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// conformance says which programs besides totpctl open what is sealed to a kind of
// recipient, and why one does not. What is said not to work is tried as well, where
// there is a key to try it with.
var conformance = map[seal.Kind]struct {
	ageSince string // the first version of the program age that opens it
	whyNot   string // age does not, in any version
	node     bool   // age-encryption, as it stands in the page
	whyNoJS  string
}{
	seal.X25519:     {ageSince: "1.0", node: true},
	seal.Hybrid:     {ageSince: "1.3", node: true},
	seal.Tag:        {whyNot: "the key is in hardware: age asks the plugin of the device", whyNoJS: "a page reaches no such hardware; age-encryption seals to it only"},
	seal.TagPQ:      {whyNot: "the key is in hardware: age asks the plugin of the device", whyNoJS: "a page reaches no such hardware; age-encryption seals to it only"},
	seal.SSHEd25519: {ageSince: "1.0", whyNoJS: "age-encryption has no SSH keys"},
	seal.SSHRSA:     {ageSince: "1.0", whyNoJS: "age-encryption has no SSH keys"},
}

// TestConformance: an envelope of every kind is opened by age's own library, by the
// program age, and by age-encryption for JavaScript, or there is a reason why not.
func TestConformance(t *testing.T) {
	x, xr, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	h, hr, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	tag, tagPQ := newTagIdentity(t), newTagPQIdentity(t)
	// The identities as age reads them, and its programs.
	x25519, err := age.ParseX25519Identity(x)
	if err != nil {
		t.Fatal(err)
	}
	hybrid, err := age.ParseHybridIdentity(h)
	if err != nil {
		t.Fatal(err)
	}
	kinds := []struct {
		recipient string
		identity  age.Identity
		file      string // empty: there is none, the key is in hardware
	}{
		{xr, x25519, x + "\n"},
		{hr, hybrid, h + "\n"},
		{tag.recipient, tag, ""},
		{tagPQ.recipient, tagPQ, ""},
		{read(t, "ed25519.pub"), sshIdentity(t, "ed25519"), read(t, "ed25519")},
		{read(t, "rsa.pub"), sshIdentity(t, "rsa"), read(t, "rsa")},
	}
	if len(kinds) != len(conformance) {
		t.Errorf("%d kinds are tried, and there are %d", len(kinds), len(conformance))
	}
	c, text := someCard(t)
	program, version := ageProgram(t)
	node := pagetest.Start(t)
	for _, k := range kinds {
		r := parse(t, k.recipient)
		want := conformance[r.Kind()]
		t.Run(r.Kind().String(), func(t *testing.T) {
			sealed := mustSeal(t, text, r)
			armored := mustArmor(t, sealed)

			for form, from := range map[string]io.Reader{"binary": bytes.NewReader(sealed), "armored": armor.NewReader(bytes.NewReader(armored))} {
				if got, err := libraryOpens(from, k.identity); err != nil || !bytes.Equal(got, text) {
					t.Errorf("the library, %s: %d bytes, %v", form, len(got), err)
				}
			}

			if (want.ageSince == "") == (want.whyNot == "") || want.node == (want.whyNoJS != "") {
				t.Error("say either how or why not")
			}
			if program != "" && k.file != "" {
				opens := !older(version, want.ageSince)
				for form, envelope := range map[string][]byte{"binary": sealed, "armored": armored} {
					got, err := ageOpens(t, program, k.file, envelope)
					if opens && (err != nil || !bytes.Equal(got, text)) || !opens && err == nil {
						t.Errorf("age %s, %s: %d bytes, %v; it should be able to since %s", version, form, len(got), err, want.ageSince)
					}
				}
			}

			keys := k.file
			if keys == "" {
				keys = x // another: what is sealed to hardware asks for a key that is not there
			}
			for form, envelope := range map[string][]byte{"binary": sealed, "armored": armored} {
				got := node.Open(t, envelope, keys)
				if want.node != (len(got.Opened) == 1) || want.node && got.Opened[0].Card["secret"] != c.Secret {
					t.Errorf("age-encryption, %s: %d cards, problem %q; %s", form, len(got.Opened), got.Problem, want.whyNoJS)
				}
			}
		})
	}
}

func someCard(t *testing.T) (card.Card, []byte) {
	t.Helper()
	c := card.Card{
		V: card.Version, Type: card.Type, ID: "abcdefgh234567ijklmnopqrsu", Generation: 1, InstanceID: "i-0a1b2c3d", Hostname: "web-1", User: "alice",
		Issuer: "SSH", Created: time.Date(2025, 3, 1, 12, 30, 0, 0, time.UTC), Secret: "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", Algorithm: "SHA1", Digits: 6, Period: 30,
		Recipients: []string{"sha256:0123456789abcdef"}, Agent: "0.1.0",
	}
	c.OTPAuth = "otpauth://totp/SSH:alice@web-1?secret=" + c.Secret + "&issuer=SSH"
	text, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	return c, text
}

// sshIdentity has age read a key of testdata, as its program does.
func sshIdentity(t *testing.T, name string) age.Identity {
	t.Helper()
	id, err := agessh.ParseIdentity([]byte(read(t, name)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func libraryOpens(from io.Reader, id age.Identity) ([]byte, error) {
	r, err := age.Decrypt(from, id)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// ageProgram returns the program and its version. Where there is none, what it
// opens is not tried, unless CI=true is set.
func ageProgram(t *testing.T) (program, version string) {
	t.Helper()
	program, err := exec.LookPath("age")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("age is missing; apt install age")
		}
		t.Log("age is missing; apt install age")
		return "", ""
	}
	out, err := exec.Command(program, "--version").Output()
	version = regexp.MustCompile(`\d+\.\d+`).FindString(string(out))
	if err != nil || version == "" {
		t.Fatalf("age --version: %q, %v", out, err)
	}
	return program, version
}

// older compares versions of age, which are all 1.N so far.
func older(version, than string) bool {
	v, _ := strings.CutPrefix(version, "1.")
	w, _ := strings.CutPrefix(than, "1.")
	return len(v) < len(w) || len(v) == len(w) && v < w
}

func ageOpens(t *testing.T, program, identity string, envelope []byte) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	for name, data := range map[string][]byte{"identity": []byte(identity), "envelope": envelope} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := exec.Command(program, "-d", "-i", filepath.Join(dir, "identity"), filepath.Join(dir, "envelope")).Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return got, err
}
