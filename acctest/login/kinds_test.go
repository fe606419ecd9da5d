// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"crypto/rand"
	"testing"
)

func TestNewKeyOf(t *testing.T) {
	t.Parallel()
	for kind, want := range map[Kind]string{
		RSA1024: "ssh-rsa", ECDSA256: "ecdsa-sha2-nistp256", Ed25519: "ssh-ed25519",
		SKEd25519: "sk-ssh-ed25519@openssh.com", SKECDSA256: "sk-ecdsa-sha2-nistp256@openssh.com",
	} {
		k, err := NewKeyOf(kind)
		if err != nil {
			t.Fatal(err)
		}
		public := k.signer.PublicKey()
		if public.Type() != want {
			t.Errorf("%s: %s, want %s", kind, public.Type(), want)
		}
		data := []byte("data")
		sig, err := k.signer.Sign(rand.Reader, data)
		if err != nil {
			t.Fatal(err)
		}
		if err := public.Verify(data, sig); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := public.Verify([]byte("other data"), sig); err == nil {
			t.Errorf("%s: other data verify as well", kind)
		}
	}
	if _, err := NewKeyOf("dsa"); err == nil {
		t.Error("a kind that is none was made")
	}
}
