// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Kind is a kind of login key, by the names that people have for them.
type Kind string

// The kinds that [NewKeyOf] makes. Those of a security key are made and used
// without one: they sign in this process what a device would, with the touch
// that sshd demands, PROTOCOL.u2f of OpenSSH.
const (
	RSA1024    Kind = "rsa-1024"
	RSA2048    Kind = "rsa-2048"
	RSA3072    Kind = "rsa-3072"
	ECDSA256   Kind = "ecdsa-256"
	Ed25519    Kind = "ed25519"
	SKEd25519  Kind = "sk-ed25519"
	SKECDSA256 Kind = "sk-ecdsa-256"
)

// NewKeyOf makes a key of a kind. It has no file, and so is for the client [Go]
// alone.
func NewKeyOf(kind Kind) (*Key, error) {
	signer, err := newSigner(kind)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return &Key{
		Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
		signer: signer,
	}, nil
}

func newSigner(kind Kind) (ssh.Signer, error) {
	var key crypto.Signer
	var err error
	switch kind {
	case RSA1024:
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	case RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case ECDSA256, SKECDSA256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case Ed25519, SKEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		err = fmt.Errorf("no such kind of key")
	}
	if err != nil {
		return nil, err
	}
	plain, err := ssh.NewSignerFromSigner(key)
	if err != nil || kind != SKEd25519 && kind != SKECDSA256 {
		return plain, err
	}
	public, err := skPublicKey(plain.PublicKey())
	return skSigner{key, public}, err
}

// skApplication is what OpenSSH's own ssh-keygen names.
const skApplication = "ssh:"

// skPublicKey is the key of a security key that signs with this one.
func skPublicKey(plain ssh.PublicKey) (ssh.PublicKey, error) {
	name := map[string]string{ssh.KeyAlgoED25519: ssh.KeyAlgoSKED25519, ssh.KeyAlgoECDSA256: ssh.KeyAlgoSKECDSA256}[plain.Type()]
	// The same fields under another name, and one more.
	var f struct {
		Name string
		Rest []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(plain.Marshal(), &f); err != nil {
		return nil, err
	}
	f.Name = name
	f.Rest = append(f.Rest, ssh.Marshal(struct{ Application string }{skApplication})...)
	return ssh.ParsePublicKey(ssh.Marshal(f))
}

// skSigner signs as a security key does that somebody touches.
type skSigner struct {
	key    crypto.Signer
	public ssh.PublicKey
}

func (s skSigner) PublicKey() ssh.PublicKey { return s.public }

func (s skSigner) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	const touched = 1
	tail := ssh.Marshal(struct {
		Flags   byte
		Counter uint32
	}{touched, 1})
	application, message := sha256.Sum256([]byte(skApplication)), sha256.Sum256(data)
	signed := append(append(application[:], tail...), message[:]...)
	sig := &ssh.Signature{Format: s.public.Type(), Rest: tail}
	if _, ok := s.key.(ed25519.PrivateKey); ok {
		var err error
		sig.Blob, err = s.key.Sign(random, signed, crypto.Hash(0))
		return sig, err
	}
	digest := sha256.Sum256(signed)
	der, err := s.key.Sign(random, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	var numbers struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &numbers); err != nil {
		return nil, err
	}
	sig.Blob = ssh.Marshal(numbers)
	return sig, nil
}
