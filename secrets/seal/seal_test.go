// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

var text = []byte("the card\nof the longest day\n" + strings.Repeat("x", 70000))

// A key is an identity and the recipient that belongs to it.
type key struct {
	name      string
	recipient seal.Recipient
	identity  age.Identity
}

func keys(t testing.TB) []key {
	t.Helper()
	identity := func(data string) age.Identity {
		ids, err := seal.ParseIdentities([]byte(data), nil)
		if err != nil {
			t.Fatal(err)
		}
		return ids[0]
	}
	x, xr, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	h, hr, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	tag, tagPQ := newTagIdentity(t), newTagPQIdentity(t)
	return []key{
		{"X25519", parse(t, xr), identity(x)},
		{"hybrid", parse(t, hr), identity(h)},
		{"tag", parse(t, tag.recipient), tag},
		{"tagpq", parse(t, tagPQ.recipient), tagPQ},
		{"ssh-ed25519", parse(t, read(t, "ed25519.pub")), identity(read(t, "ed25519"))},
		{"ssh-rsa", parse(t, read(t, "rsa.pub")), identity(read(t, "rsa"))},
	}
}

func mustSeal(t testing.TB, plaintext []byte, rs ...seal.Recipient) []byte {
	t.Helper()
	b, err := seal.Seal(plaintext, rs)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustArmor(t testing.TB, sealed []byte) []byte {
	t.Helper()
	b, err := seal.Armor(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// forms are the ways in which an envelope may reach whoever opens it.
func forms(t testing.TB, sealed []byte) map[string][]byte {
	armored := mustArmor(t, sealed)
	one := base64.StdEncoding.EncodeToString(sealed)
	return map[string][]byte{
		"binary":                sealed,
		"armored":               armored,
		"armored, CRLF":         bytes.ReplaceAll(armored, []byte("\n"), []byte("\r\n")),
		"armored, blanks":       slices.Concat([]byte("\n\t \n"), armored, []byte("\n \n")),
		"armored, byte order":   slices.Concat([]byte("\ufeff"), armored),
		"armored, indented":     bytes.ReplaceAll(armored, []byte("\n"), []byte(" \n  ")),
		"armored, in a mail":    slices.Concat([]byte("Hello,\nhere is your card:\n"), armored, []byte("-- \nthe host\n")),
		"armored, every second": bytes.ReplaceAll(armored, []byte("\n"), []byte("\n\n")),
		"base64":                []byte(one),
		"base64 with newline":   []byte(one + "\r\n"),
		"base64 in lines":       []byte(one[:100] + "\n" + one[100:]),
	}
}

func TestSealAndOpen(t *testing.T) {
	ks := keys(t)
	for _, k := range ks {
		t.Run(k.name, func(t *testing.T) {
			sealed := mustSeal(t, text, k.recipient)
			for form, envelope := range forms(t, sealed) {
				got, err := seal.Open(envelope, k.identity)
				if err != nil || !bytes.Equal(got, text) {
					t.Errorf("%s: %d bytes, %v", form, len(got), err)
				}
				back, err := seal.Dearmor(envelope)
				if err != nil || !bytes.Equal(back, sealed) {
					t.Errorf("%s: Dearmor: %d bytes, %v", form, len(back), err)
				}
			}
			for _, other := range ks {
				if other.name == k.name {
					continue
				}
				if _, err := seal.Open(sealed, other.identity); !errors.Is(err, seal.ErrWrongIdentity) || errors.Is(err, seal.ErrDamaged) {
					t.Errorf("opened by %s: %v; want ErrWrongIdentity", other.name, err)
				}
			}
		})
	}
	for _, class := range []seal.Class{seal.Classic, seal.PostQuantum} {
		var rs []seal.Recipient
		for _, k := range ks {
			if k.recipient.Class() == class {
				rs = append(rs, k.recipient, k.recipient)
			}
		}
		sealed := mustSeal(t, text, rs...)
		if n := bytes.Count(sealed[:bytes.Index(sealed, []byte("\n--- "))], []byte("\n-> ")); n != len(rs)/2 {
			t.Errorf("%v: %d copies for %d recipients", class, n, len(rs)/2)
		}
		for _, k := range ks {
			got, err := seal.Open(sealed, k.identity)
			if k.recipient.Class() == class && (err != nil || !bytes.Equal(got, text)) {
				t.Errorf("%v: %s: %v", class, k.name, err)
			}
			if k.recipient.Class() != class && !errors.Is(err, seal.ErrWrongIdentity) {
				t.Errorf("%v: %s: %v; want ErrWrongIdentity", class, k.name, err)
			}
		}
	}
}

func TestSealErrors(t *testing.T) {
	r := keys(t)[0].recipient
	if _, err := seal.Seal(text, nil); !errors.Is(err, seal.ErrNoRecipients) {
		t.Errorf("to nobody: %v", err)
	}
	if _, err := seal.Seal(make([]byte, seal.MaxSize+1), []seal.Recipient{r}); !errors.Is(err, seal.ErrTooLarge) {
		t.Errorf("1 MiB and a byte: %v", err)
	}
	if _, err := seal.Armor(text); !errors.Is(err, seal.ErrNoEnvelope) {
		t.Errorf("armor of what is no envelope: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	ks := keys(t)
	k := ks[0]
	sealed := mustSeal(t, []byte("the card"), k.recipient)
	armored := mustArmor(t, sealed)
	for name, tt := range map[string]struct {
		envelope []byte
		err      error
	}{
		"nothing":           {nil, seal.ErrNoEnvelope},
		"blanks":            {[]byte(" \r\n"), seal.ErrNoEnvelope},
		"something else":    {[]byte("-----BEGIN PGP MESSAGE-----\n"), seal.ErrNoEnvelope},
		"the card itself":   {[]byte("the card"), seal.ErrNoEnvelope},
		"an identity":       {[]byte("AGE-SECRET-KEY-1"), seal.ErrNoEnvelope},
		"age, version 2":    {bytes.Replace(sealed, []byte("/v1"), []byte("/v2"), 1), seal.ErrNoEnvelope},
		"two":               {slices.Concat(armored, armored), seal.ErrSeveral},
		"no footer":         {armored[:len(armored)-10], seal.ErrDamaged},
		"a line less":       {dropLine(armored, 2), seal.ErrDamaged},
		"lines exchanged":   {exchangeLines(armored, 1, 2), seal.ErrDamaged},
		"no base64":         {bytes.Replace(armored, []byte("YWdl"), []byte("Y!dl"), 1), seal.ErrDamaged},
		"base64 cut short":  {[]byte(base64.StdEncoding.EncodeToString(sealed)[:101]), seal.ErrDamaged},
		"trailing bytes":    {slices.Concat(sealed, []byte("x")), seal.ErrDamaged},
		"two, binary":       {slices.Concat(sealed, sealed), seal.ErrDamaged},
		"line ends changed": {bytes.ReplaceAll(sealed, []byte("\n"), []byte("\r\n")), seal.ErrDamaged},
		"last byte altered": {alter(sealed, len(sealed)-1), seal.ErrDamaged},
		"MAC altered":       {alter(sealed, bytes.Index(sealed, []byte("\n--- "))+8), seal.ErrDamaged},
		"too large":         {slices.Concat(sealed, make([]byte, seal.MaxSize)), seal.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := seal.Open(tt.envelope, k.identity)
			if got != nil || !errors.Is(err, tt.err) {
				t.Fatalf("%q, %v; want %v", got, err, tt.err)
			}
			for _, other := range []error{seal.ErrNoEnvelope, seal.ErrSeveral, seal.ErrDamaged, seal.ErrTooLarge, seal.ErrWrongIdentity} {
				if other != tt.err && errors.Is(err, other) {
					t.Errorf("it is %v as well", other)
				}
			}
		})
	}
	if _, err := seal.Open(sealed); !errors.Is(err, seal.ErrWrongIdentity) {
		t.Errorf("without identities: %v; want ErrWrongIdentity", err)
	}
	if got, err := seal.Open(sealed, ks[1].identity, ks[4].identity, k.identity); err != nil || string(got) != "the card" {
		t.Errorf("with the right identity among others: %v", err)
	}
}

// TestOpenAnyDamage cuts an envelope at every byte and alters every byte: no
// text may ever come out, and the error must be one of three.
func TestOpenAnyDamage(t *testing.T) {
	for _, k := range keys(t)[:2] { // the others differ in their stanza only
		sealed := mustSeal(t, []byte("the card"), k.recipient)
		for i := range sealed {
			for how, envelope := range map[string][]byte{"cut": sealed[:i], "altered": alter(sealed, i)} {
				got, err := seal.Open(envelope, k.identity)
				if got != nil || !errors.Is(err, seal.ErrDamaged) && !errors.Is(err, seal.ErrNoEnvelope) && !errors.Is(err, seal.ErrWrongIdentity) {
					t.Errorf("%s: %s at byte %d: %q, %v", k.name, how, i, got, err)
				}
				if how == "cut" && i > 100 && !errors.Is(err, seal.ErrDamaged) {
					t.Errorf("%s: cut at byte %d: %v; want ErrDamaged", k.name, i, err)
				}
			}
		}
	}
}

func alter(b []byte, i int) []byte {
	b = bytes.Clone(b)
	b[i] ^= 1
	return b
}

func dropLine(b []byte, n int) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	return bytes.Join(slices.Delete(lines, n, n+1), nil)
}

func exchangeLines(b []byte, i, j int) []byte {
	lines := bytes.SplitAfter(b, []byte("\n"))
	lines[i], lines[j] = lines[j], lines[i]
	return bytes.Join(lines, nil)
}

func FuzzOpen(f *testing.F) {
	k := keys(f)[0]
	sealed := mustSeal(f, []byte("the card"), k.recipient)
	for _, envelope := range forms(f, sealed) {
		f.Add(envelope)
	}
	f.Fuzz(func(t *testing.T, envelope []byte) {
		got, err := seal.Open(envelope, k.identity)
		if err == nil && string(got) != "the card" {
			t.Errorf("opened to %q", got)
		}
		if err == nil {
			return
		}
		for _, known := range []error{seal.ErrNoEnvelope, seal.ErrSeveral, seal.ErrDamaged, seal.ErrTooLarge, seal.ErrWrongIdentity} {
			if errors.Is(err, known) {
				return
			}
		}
		t.Errorf("unknown error %v", err)
	})
}

func FuzzDearmor(f *testing.F) {
	f.Add([]byte("-----BEGIN AGE ENCRYPTED FILE-----\nYWdlLWVuY3J5cHRpb24ub3JnL3Yx\n-----END AGE ENCRYPTED FILE-----\n"))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 a\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		file, err := seal.Dearmor(in)
		if err != nil || !bytes.HasPrefix(file, []byte("age-encryption.org/v1\n")) {
			return
		}
		text, err := seal.Armor(file)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := seal.Dearmor(text); err != nil || !bytes.Equal(again, file) {
			t.Errorf("%d bytes became %d: %v", len(file), len(again), err)
		}
	})
}
