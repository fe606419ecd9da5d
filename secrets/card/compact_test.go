// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card_test

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

func TestCompact(t *testing.T) {
	for _, tt := range []struct {
		name    string
		card    card.Card
		hostKey []string
	}{
		{"sample", sample(), []string{ed25519Entry}},
		{"longest", longest(), []string{strings.TrimSuffix(ed25519Entry, " "+ed25519Blob)}},
		{"plainest", plainest(), nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := tt.card.Compact()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, tt.name+"-compact.json", b)
			got, err := card.ParseCompact(b)
			if err != nil {
				t.Fatal(err)
			}
			c := tt.card
			want := card.Card{
				V: 1, Type: card.TypeCompact, ID: c.ID, Token: c.Token, InstanceID: c.InstanceID, User: c.User, Secret: c.Secret,
				Algorithm: "SHA1", Digits: 6, Period: 30, BackupCodes: c.BackupCodes, HostKeys: tt.hostKey, OTPAuth: got.OTPAuth,
			}
			if want.BackupCodes == nil {
				want.BackupCodes = []string{}
			}
			if diff := cmp.Diff(fields(want), fields(got)); diff != "" {
				t.Errorf("ParseCompact (-want +got):\n%s", diff)
			}
			page, err := got.Page(card.PageOptions{Color: true})
			if err != nil {
				t.Fatal(err)
			}
			if img := lightOnDark[0].draw(qrLines(page)); zxing(t, img) != got.OTPAuth {
				t.Error("the compact card's code does not scan")
			}
			if _, err := got.HTML(); err != nil {
				t.Error(err)
			}
			if _, err := got.Text(); !errors.Is(err, card.ErrVersion) {
				t.Errorf("Text of a compact card: %v; want ErrVersion", err)
			}
		})
	}
}

// TestCompactFits holds the promise that a compact object, sealed to one X25519
// recipient, has less than 1020 characters of base64, whatever the names.
func TestCompactFits(t *testing.T) {
	_, recipient, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	r, err := seal.ParseRecipient(recipient)
	if err != nil {
		t.Fatal(err)
	}
	longKey := longest()
	longKey.HostKeys = []string{strings.Repeat("k", 40) + strings.TrimPrefix(rsaEntry, "ssh-rsa")}
	for _, c := range []card.Card{longest(), longKey, sample()} {
		b, err := c.Compact()
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := seal.Seal(b, []seal.Recipient{r})
		if err != nil {
			t.Fatal(err)
		}
		if n := base64.StdEncoding.EncodedLen(len(sealed)); n >= 1020 {
			t.Errorf("%d characters of base64 for %d bytes", n, len(b))
		}
	}
}

// TestShortCompact: it is the compact form without the host key's blob, has the size
// that CompactSize says, and is the same whatever form it is made of.
func TestShortCompact(t *testing.T) {
	c := sample()
	c.InstanceID = "0e8f5d0a-7a4c-4a5e-9d3a-9b0c0a1d2e3f"
	b, err := c.ShortCompact()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), ed25519Blob) || !strings.Contains(string(b), "SHA256:") {
		t.Errorf("got %s", b)
	}
	if n := card.CompactSize(c.User, len(c.BackupCodes), c.Token != ""); n != len(b) {
		t.Errorf("CompactSize says %d, and it has %d bytes", n, len(b))
	}
	full, err := c.Compact()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range [][]byte{b, full} {
		got, err := card.ParseCompact(text)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := got.ShortCompact(); err != nil || string(again) != string(b) {
			t.Errorf("of %s: %s, %v", text, again, err)
		}
	}
	plain := plainest()
	if b, err := plain.ShortCompact(); err != nil || !strings.Contains(string(b), `"hk":""`) {
		t.Errorf("without a host key: %s, %v", b, err)
	}
}

func TestParseCompactErrors(t *testing.T) {
	text, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	b, err := sample().Compact()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, new string) []byte { return []byte(strings.Replace(string(b), old, new, 1)) }
	for name, tt := range map[string]struct {
		text  []byte
		err   error
		field string
	}{
		"empty":       {nil, card.ErrNoCard, ""},
		"full card":   {text, card.ErrNoCard, ""},
		"cut short":   {b[:len(b)-3], card.ErrNoCard, ""},
		"too large":   {append(make([]byte, card.MaxSize), b...), card.ErrTooLarge, ""},
		"newer":       {replace(`"v":1`, `"v":2`), card.ErrVersion, "v"},
		"id":          {replace(sample().ID, "../x"), card.ErrField, "id"},
		"user":        {replace(`"alice"`, `"al/ice"`), card.ErrField, "user"},
		"instance":    {replace(`"i-0`, `"\u001b[2J`), card.ErrField, "instance_id"},
		"secret":      {replace(`"sec":"G`, `"sec":"`), card.ErrField, "secret"},
		"backup code": {replace(`"10000000"`, `"00000000"`), card.ErrField, "backup_codes[0]"},
		"host key":    {replace(`SHA256:`, `MD5:`), card.ErrField, "host_keys[0]"},
	} {
		_, err := card.ParseCompact(tt.text)
		var fe *card.FieldError
		if !errors.Is(err, tt.err) || tt.field != "" && (!errors.As(err, &fe) || fe.Field != tt.field) {
			t.Errorf("%s: %v; want %s: %v", name, err, tt.field, tt.err)
		}
	}
}
