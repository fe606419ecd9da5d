// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is an ordinary card.
func sample() card.Card {
	return card.Card{
		V: 1, Type: card.Type, ID: "k5ccmyhxhx4hyt4ssw3zfkzg6u", Generation: 2, Supersedes: "7zgdzsbt7wjpvnvz3dk5ydbl3y",
		Token:      card.TokenMAC([]byte("0123456789abcdef"), "alice"),
		InstanceID: "i-0a1b2c3d4e5f60718", Hostname: "web-1", User: "alice", Issuer: "Example Hosting",
		Created:     time.Date(2026, 8, 24, 10, 11, 12, 0, time.UTC),
		OTPAuth:     "otpauth://totp/Example%20Hosting:alice@web-1?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Example%20Hosting",
		Secret:      "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", // RFC 6238 appendix B
		Algorithm:   "SHA1",
		Digits:      6,
		Period:      30,
		BackupCodes: []string{"10000000", "23456789", "34567890", "45678901", "56789012", "67890123", "78901234", "99999999"},
		HostKeys:    []string{ed25519Entry, ecdsaEntry, rsaEntry},
		Recipients:  []string{"sha256:0123456789abcdef", "sha256:fedcba9876543210"},
		Escrow:      []string{"age1qqqq…zzzz", "ssh-ed25519 SHA256:WlpFKeSqiDNPUUcYvO0ARNrmOZjzcxuPqsDp9rURVvA"},
		Agent:       "0.1.0",
	}
}

// longest is the card whose every name is as long as it can be.
func longest() card.Card {
	c := sample()
	c.User = strings.Repeat("u", 32)
	c.Hostname = strings.Repeat("h", 64)
	c.InstanceID = strings.Repeat("i", 128)
	c.Issuer = strings.Repeat("Ä", 21) + "AB" // 21*6+2 = 128 bytes escaped
	issuer := strings.Repeat("%C3%84", 21) + "AB"
	c.OTPAuth = "otpauth://totp/" + issuer + ":" + c.User + "@" + c.Hostname + "?secret=" + c.Secret + "&issuer=" + issuer
	c.Generation = 1<<31 - 1
	c.BackupCodes = append(c.BackupCodes, "11111111", "22222222")
	c.Token = card.TokenMAC([]byte("0123456789abcdef"), c.User)
	c.Agent = strings.Repeat("1", 64)
	return c
}

// plainest has nothing that can be left out.
func plainest() card.Card {
	c := sample()
	c.Generation, c.Supersedes, c.Token, c.InstanceID = 1, "", "", ""
	c.BackupCodes, c.HostKeys, c.Escrow = nil, nil, nil
	return c
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; if that is as it should be, run go test -update (-golden +got):\n%s", file, diff)
	}
}
