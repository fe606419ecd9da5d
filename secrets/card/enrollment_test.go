// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card_test

import (
	"crypto/rand"
	"errors"
	"io"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// enrolled is the card of a new enrollment.
func enrolled(issuer, user, host string, random io.Reader) (card.Card, error) {
	e, err := otp.New(otp.Params{Issuer: issuer, Account: user + "@" + host, BackupCodes: 8}, random)
	if err != nil {
		return card.Card{}, err
	}
	c := sample()
	c.Issuer, c.User, c.Hostname = issuer, user, host
	c.OTPAuth, c.Secret, c.BackupCodes = e.URI, e.Secret, e.BackupCodes
	return c, nil
}

// TestEnrollmentFits shows that every enrollment makes a card whose code scans
// within 80 columns.
func TestEnrollmentFits(t *testing.T) {
	random := mathrand.NewChaCha8([32]byte{}) // the same codes every time
	user, host := strings.Repeat("u", 32), strings.Repeat("h", 64)
	for _, issuer := range []string{
		"E", "Example Hosting", "R&D: no", "R&D", "50% + 1?", "a/b#c=d;e@f", strings.Repeat("i", 64), strings.Repeat("a ", 31) + "aa",
		strings.Repeat("&", 42), strings.Repeat("Ä", 21) + "ab", strings.Repeat("雲", 14), "שלום", "Ex\u202eample", "a\x00b", " a", "",
	} {
		c, err := enrolled(issuer, user, host, random)
		if err != nil {
			if otp.ValidIssuer(issuer) == nil || !errors.Is(err, otp.ValidIssuer(issuer).(*otp.NameError).Rule) {
				t.Errorf("%q: %v", issuer, err)
			}
			continue
		}
		text, err := c.Text()
		if err != nil {
			t.Errorf("%q: %v", issuer, err)
			continue
		}
		lines := qrLines(string(text))
		if w := width(lines[0]); w > 80 {
			t.Errorf("%q: code of %d columns", issuer, w)
		}
		if got := zxing(t, lightOnDark[0].draw(lines)); got != c.OTPAuth {
			t.Errorf("%q: scanned %q; want %q", issuer, got, c.OTPAuth)
		}
	}
}

// BenchmarkEnrollment is what one more user costs but for the disk: the budget
// is 1.5 ms of CPU.
func BenchmarkEnrollment(b *testing.B) {
	r := benchRecipient(b, seal.GenerateX25519)
	for b.Loop() {
		c, err := enrolled("Example Hosting", "alice", "web-1", rand.Reader)
		if err != nil {
			b.Fatal(err)
		}
		text, err := c.Text()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := seal.Seal(text, r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		if _, err := enrolled("Example Hosting", "alice", "web-1", rand.Reader); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkText(b *testing.B) {
	for b.Loop() {
		if _, err := sample().Text(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	text, err := sample().Text()
	if err != nil {
		b.Fatal(err)
	}
	for _, kind := range []struct {
		name     string
		generate func() (string, string, error)
	}{{"X25519", seal.GenerateX25519}, {"Hybrid", seal.GenerateHybrid}} {
		b.Run(kind.name, func(b *testing.B) {
			r := benchRecipient(b, kind.generate)
			for b.Loop() {
				if _, err := seal.Seal(text, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func benchRecipient(b *testing.B, generate func() (string, string, error)) []seal.Recipient {
	b.Helper()
	_, s, err := generate()
	if err != nil {
		b.Fatal(err)
	}
	r, err := seal.ParseRecipient(s)
	if err != nil {
		b.Fatal(err)
	}
	return []seal.Recipient{r}
}
