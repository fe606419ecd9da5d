// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal_test

import (
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"testing"

	"filippo.io/age"
	"filippo.io/age/plugin"
	"filippo.io/hpke"
)

// A tagIdentity opens what is sealed to a tagged recipient, as the plugin of a
// hardware key does (C2SP age specification, "p256tag" and "mlkem768p256tag").
// It tries every stanza and leaves the tag alone, which only saves work.
type tagIdentity struct {
	key       hpke.PrivateKey
	stanza    string
	recipient string
}

func newTagIdentity(t testing.TB) tagIdentity {
	t.Helper()
	key, err := hpke.DHKEM(ecdh.P256()).GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	point := key.PublicKey().Bytes() // uncompressed: 4, x, y
	compressed := append([]byte{2 + point[64]&1}, point[1:33]...)
	return tagIdentity{key, "p256tag", plugin.EncodeRecipient("tag", compressed)}
}

func newTagPQIdentity(t testing.TB) tagIdentity {
	t.Helper()
	key, err := hpke.MLKEM768P256().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return tagIdentity{key, "mlkem768p256tag", plugin.EncodeRecipient("tagpq", key.PublicKey().Bytes())}
}

func (i tagIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != i.stanza || len(s.Args) != 2 {
			continue
		}
		enc, err := base64.RawStdEncoding.DecodeString(s.Args[1])
		if err != nil {
			return nil, fmt.Errorf("malformed stanza: %w", err)
		}
		r, err := hpke.NewRecipient(enc, i.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("age-encryption.org/"+i.stanza))
		if err != nil {
			return nil, err
		}
		if key, err := r.Open(nil, s.Body); err == nil {
			return key, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// yubikey is a recipient of a plugin.
func yubikey(t testing.TB) string {
	t.Helper()
	s := plugin.EncodeRecipient("yubikey", make([]byte, 33))
	if s == "" {
		t.Fatal("no recipient")
	}
	return s
}
