// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const passphrase = "correct horse battery staple"

// A desk is a directory with an identity, and a card sealed to it.
type desk struct {
	card                       card.Card
	dir                        string
	identity, envelope, binary string
	key, recipient             string
}

func newDesk(t testing.TB, generate func() (identity, recipient string, err error)) *desk {
	t.Helper()
	key, recipient, err := generate()
	check(t, err)
	r, err := seal.ParseRecipient(recipient)
	check(t, err)
	d := &desk{dir: t.TempDir(), key: key, recipient: recipient}
	d.card = newCard(cardSpec{user: "alice", host: "web-1", instance: "i-0a1b2c3d", generation: 1})
	text, err := d.card.Text()
	check(t, err)
	sealed, err := seal.Seal(text, []seal.Recipient{r})
	check(t, err)
	armored, err := seal.Armor(sealed)
	check(t, err)
	d.identity = d.file(t, "key.txt", []byte(key+"\n"))
	d.binary = d.file(t, "binary.age", sealed)
	d.envelope = d.file(t, "card.age", armored)
	return d
}

// locked is the identity, protected by the passphrase.
func (d *desk) locked(t testing.TB) string {
	t.Helper()
	r, err := age.NewScryptRecipient(passphrase)
	check(t, err)
	r.SetWorkFactor(10)
	var out bytes.Buffer
	w, err := age.Encrypt(&out, r)
	check(t, err)
	_, err = io.WriteString(w, d.key+"\n")
	check(t, err)
	check(t, w.Close())
	return d.file(t, "locked.age", out.Bytes())
}

func (d *desk) file(t testing.TB, name string, data []byte) string {
	t.Helper()
	name = filepath.Join(d.dir, name)
	check(t, os.WriteFile(name, data, 0o600))
	return name
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// needs skips a test whose tool is missing, but not in CI.
func needs(t testing.TB, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is missing", tool)
		}
		t.Skipf("%s is missing", tool)
	}
}
