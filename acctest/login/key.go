// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Key is a login key made for the lab.
type Key struct {
	Public string     // line of authorized_keys
	File   string     // private key as OpenSSH has it, without a passphrase
	signer ssh.Signer // the same
}

// NewKey makes an Ed25519 key, whose files are dir/name and dir/name.pub.
func NewKey(dir, name string) (*Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		return nil, err
	}
	k := &Key{
		Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " " + name,
		File:   filepath.Join(dir, name),
		signer: signer,
	}
	if err := os.WriteFile(k.File, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, err
	}
	return k, os.WriteFile(k.File+".pub", []byte(k.Public+"\n"), 0o644)
}

// OpenKey reads a private key without a passphrase from a file of OpenSSH's.
func OpenKey(file string) (*Key, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &Key{
		Public: strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
		File:   file,
		signer: signer,
	}, nil
}

// PPK converts the key to PuTTY's format with puttygen, once, and returns the
// file's name.
func (k *Key) PPK(ctx context.Context) (string, error) {
	name := k.File + ".ppk"
	if _, err := os.Stat(name); err == nil {
		return name, nil
	}
	out, err := exec.CommandContext(ctx, "puttygen", k.File, "-O", "private", "-o", name).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("puttygen: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return name, nil
}
