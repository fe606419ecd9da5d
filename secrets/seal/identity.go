// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/armor"
	"golang.org/x/crypto/ssh"
)

var (
	// ErrNoIdentity means that there is no secret key in the input.
	ErrNoIdentity = errors.New("no identity found")

	// ErrRecipientAsIdentity means that there is a public key where the secret
	// one is wanted.
	ErrRecipientAsIdentity = errors.New("is a public key where the identity is wanted")

	// ErrPPK means that the key is in PuTTY's own format.
	ErrPPK = errors.New("is a key in PuTTY's format")

	// ErrPassphrase means that a passphrase is wrong or was not given.
	ErrPassphrase = errors.New("wrong passphrase")
)

// ParseIdentities reads the secret keys of a file: an age identity file, plain
// or itself encrypted with a passphrase (armored or not), or an SSH private key
// of type ed25519 or RSA in OpenSSH's or PEM format. Line ends may be CRLF.
//
// Where a passphrase is needed, it calls passphrase with a prompt without colon;
// nil means that nobody can be asked. The bytes that it returns are overwritten
// after use.
//
// The errors are [ErrNoIdentity], [ErrRecipientAsIdentity], [ErrPPK],
// [ErrPlugin], [ErrUnsupportedSSH], [ErrPassphrase], [ErrTooLarge] and those of
// passphrase.
func ParseIdentities(data []byte, passphrase func(prompt string) ([]byte, error)) ([]age.Identity, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("identity of %d bytes: %w", len(data), ErrTooLarge)
	}
	ask := func(prompt string) ([]byte, error) {
		if passphrase == nil {
			return nil, fmt.Errorf("%w; the key is locked and there is nobody to ask", ErrPassphrase)
		}
		pass, err := passphrase(prompt)
		if err == nil && len(pass) == 0 {
			return nil, fmt.Errorf("identity: %w; it is empty", ErrPassphrase)
		}
		return pass, err
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff")))
	switch {
	case bytes.HasPrefix(text, []byte("PuTTY-User-Key-File-")):
		return nil, fmt.Errorf(`identity: %w; in PuTTYgen: Load, then menu Conversions, "Export OpenSSH key (force new file format)", and use that file`, ErrPPK)
	case bytes.HasPrefix(data, []byte(magic)), bytes.HasPrefix(text, []byte(armor.Header)):
		return parseLocked(data, ask)
	case bytes.HasPrefix(text, []byte("-----BEGIN ")):
		id, err := parseSSHIdentity(append(text, '\n'), ask)
		if err != nil {
			return nil, err
		}
		return []age.Identity{id}, nil
	}
	return parseIdentityLines(string(text))
}

// GenerateX25519 makes a new key: an identity (AGE-SECRET-KEY-1…) and its
// recipient.
func GenerateX25519() (identity, recipient string, err error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", err
	}
	return id.String(), id.Recipient().String(), nil
}

// GenerateHybrid makes a new post-quantum key: an identity
// (AGE-SECRET-KEY-PQ-1…) and its recipient, which has 1959 characters. age
// opens what is sealed to it from version 1.3.0 on.
func GenerateHybrid() (identity, recipient string, err error) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return "", "", err
	}
	return id.String(), id.Recipient().String(), nil
}

// parseIdentityLines reads a plain age identity file.
func parseIdentityLines(text string) ([]age.Identity, error) {
	var ids []age.Identity
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		var id age.Identity
		var err error
		switch {
		case line == "", strings.HasPrefix(line, "#"):
			continue
		case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-1"):
			id, err = age.ParseHybridIdentity(line)
		case strings.HasPrefix(line, "AGE-SECRET-KEY-1"):
			id, err = age.ParseX25519Identity(line)
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			return nil, fmt.Errorf("identity line %d: %w; open the envelope with age -d, which runs it", n, ErrPlugin)
		case strings.HasPrefix(line, "age1"), strings.HasPrefix(line, "ssh-"), strings.HasPrefix(line, "ecdsa-"), strings.HasPrefix(line, "sk-"):
			return nil, fmt.Errorf("identity line %d: %w; use the file that the secret key is in", n, ErrRecipientAsIdentity)
		default:
			return nil, fmt.Errorf("identity line %d: %w; a secret key begins with AGE-SECRET-KEY-1 or -----BEGIN", n, ErrNoIdentity)
		}
		if err != nil { // not quoted: it may hold parts of the key
			return nil, fmt.Errorf("identity line %d: %w; the key is damaged, copy the whole line again", n, ErrNoIdentity)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("identity: %w; a secret key begins with AGE-SECRET-KEY-1 or -----BEGIN", ErrNoIdentity)
	}
	return ids, nil
}

// parseLocked reads an age identity file that age -p has encrypted.
func parseLocked(data []byte, ask func(string) ([]byte, error)) ([]age.Identity, error) {
	file, err := Dearmor(data)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if !bytes.HasPrefix(file, []byte(magic+"-> scrypt ")) {
		return nil, fmt.Errorf("identity: %w; this is an envelope", ErrNoIdentity)
	}
	pass, err := ask("Passphrase of the identity file")
	if err != nil {
		return nil, err
	}
	defer clear(pass)
	key, err := age.NewScryptIdentity(string(pass))
	if err != nil {
		return nil, fmt.Errorf("identity: %w", ErrPassphrase)
	}
	r, err := age.Decrypt(bytes.NewReader(file), key)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, fmt.Errorf("identity: %w", ErrPassphrase)
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrDamaged, err)
	}
	text, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("identity: %w: %w", ErrDamaged, err)
	}
	defer clear(text)
	return parseIdentityLines(string(text))
}

// parseSSHIdentity reads an SSH private key. It asks for the passphrase at once
// and not, as agessh does, in the middle of opening an envelope, where a wrong
// one could not be told from damage.
func parseSSHIdentity(text []byte, ask func(string) ([]byte, error)) (age.Identity, error) {
	const remedy = "use an ed25519 or RSA key in OpenSSH format"
	if onSecurityKey(text) {
		return nil, fmt.Errorf("identity: %w: it is on a security key (sk-), which only signs; %s", ErrUnsupportedSSH, remedy)
	}
	key, err := ssh.ParseRawPrivateKey(text)
	if missing := (*ssh.PassphraseMissingError)(nil); errors.As(err, &missing) {
		prompt := "Passphrase of the SSH key"
		if missing.PublicKey != nil {
			prompt += " " + ssh.FingerprintSHA256(missing.PublicKey)
		}
		pass, askErr := ask(prompt)
		if askErr != nil {
			return nil, askErr
		}
		defer clear(pass)
		key, err = ssh.ParseRawPrivateKeyWithPassphrase(text, pass)
		if errors.Is(err, x509.IncorrectPasswordError) {
			return nil, fmt.Errorf("identity: %w", ErrPassphrase)
		}
	}
	if err != nil { // not quoted: it may hold parts of the key
		return nil, fmt.Errorf("identity: %w; the key is damaged or of an unknown format: %s", ErrNoIdentity, remedy)
	}
	var id age.Identity
	switch k := key.(type) {
	case *ed25519.PrivateKey:
		id, err = agessh.NewEd25519Identity(*k)
	case ed25519.PrivateKey:
		id, err = agessh.NewEd25519Identity(k)
	case *rsa.PrivateKey:
		id, err = agessh.NewRSAIdentity(k)
	default:
		return nil, fmt.Errorf("identity: %w; %s", ErrUnsupportedSSH, remedy)
	}
	if err != nil {
		return nil, fmt.Errorf("identity: %w; %s", ErrNoIdentity, remedy)
	}
	return id, nil
}

// onSecurityKey tells the files that ssh-keygen writes beside a security key. The
// type stands in the part that is never locked, so that nobody is asked in vain.
func onSecurityKey(text []byte) bool {
	block, _ := pem.Decode(text)
	return block != nil && (bytes.Contains(block.Bytes, []byte(ssh.KeyAlgoSKED25519)) || bytes.Contains(block.Bytes, []byte(ssh.KeyAlgoSKECDSA256)))
}
