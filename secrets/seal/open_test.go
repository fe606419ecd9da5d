// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// sealTo seals a text to so many keys, of which the last is returned.
func sealTo(t *testing.T, text string, n int) ([]byte, age.Identity) {
	t.Helper()
	var to []age.Recipient
	var last *age.X25519Identity
	for range n {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		to, last = append(to, id.Recipient()), id
	}
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), last
}

func TestCheckFile(t *testing.T) {
	whole, _ := sealTo(t, "", 1)
	most, _ := sealTo(t, "", seal.MaxRecipients)
	many, _ := sealTo(t, "", seal.MaxRecipients+1)
	mac := "--- " + strings.Repeat("A", 43) + "\n"
	for name, c := range map[string]struct {
		file []byte
		want error
	}{
		"the smallest":        {whole, nil},
		"a byte less":         {whole[:len(whole)-1], seal.ErrDamaged},
		"a header alone":      {whole[:len(whole)-32], seal.ErrDamaged},
		"an empty stanza":     {[]byte("age-encryption.org/v1\n-> a\n\n" + mac + strings.Repeat("x", 32)), seal.ErrDamaged},
		"no stanza":           {[]byte("age-encryption.org/v1\n" + mac + strings.Repeat("x", 200)), seal.ErrDamaged},
		"nothing":             {nil, seal.ErrDamaged},
		"the most recipients": {most, nil},
		"one more":            {many, seal.ErrManyRecipients},
	} {
		if err := seal.CheckFile(c.file); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestOpenMany: the recipients of an envelope are bounded before any key is tried.
func TestOpenMany(t *testing.T) {
	for n, want := range map[int]error{seal.MaxRecipients: nil, seal.MaxRecipients + 1: seal.ErrManyRecipients} {
		file, id := sealTo(t, "text", n)
		if text, err := seal.Open(file, id); !errors.Is(err, want) || (err == nil) != (string(text) == "text") {
			t.Errorf("%d recipients: %q, %v, want %v", n, text, err, want)
		}
	}
}
