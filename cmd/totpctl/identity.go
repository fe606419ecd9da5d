// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// defaultIdentity is the file that keygen writes and open reads where no other
// is named: totpctl/identity.txt in the user's configuration directory.
func defaultIdentity() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", withHints(fmt.Errorf("no place for the identity file: %w", err),
			"name a file: -i FILE to open, -o FILE to make one")
	}
	return filepath.Join(dir, "totpctl", "identity.txt"), nil
}

// loadIdentities reads identity files of every kind that seal knows. It asks for
// passphrases on the terminal.
func loadIdentities(names []string) ([]age.Identity, error) {
	if len(names) == 0 {
		name, err := defaultIdentity()
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
			return nil, withHints(fmt.Errorf("no identity: there is no file %q", name),
				"name the identity that the envelope is sealed to: -i FILE",
				"a login key can be one: -i ~/.ssh/id_ed25519")
		}
		names = []string{name}
	}
	var all []age.Identity
	for _, name := range names {
		ids, err := loadIdentity(name)
		if err != nil {
			return nil, err
		}
		all = append(all, ids...)
	}
	return all, nil
}

func loadIdentity(name string) ([]age.Identity, error) {
	data, err := readInput(name, maxIdentity)
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	warnReadable(name)
	ids, err := seal.ParseIdentities(data, func(prompt string) ([]byte, error) {
		return readSecret(fmt.Sprintf("%s in %q:", prompt, name))
	})
	if err != nil {
		return nil, identityError(name, err)
	}
	return ids, nil
}

// identityError says which identity an error is about, and what can be done.
func identityError(name string, err error) error {
	switch {
	case errors.Is(err, seal.ErrPassphrase):
		return fmt.Errorf("identity %q: the passphrase is wrong", name)
	case errors.Is(err, seal.ErrPPK):
		return withHints(fmt.Errorf("identity %q: is a PuTTY key file (.ppk), which age cannot use", name),
			"PuTTYgen turns it into an OpenSSH key: File > Load private key, then Conversions > Export OpenSSH key (force new file format)",
			"on Linux and macOS: puttygen KEY.ppk -O private-openssh-new -o KEY",
			"then pass the exported file with -i")
	}
	text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "identity: "), "identity ")
	text, remedy, ok := strings.Cut(text, "; ")
	err = wrap(fmt.Sprintf("identity %q: %s", name, text), err)
	if ok {
		err = withHints(err, remedy)
	}
	return err
}

// recipientOf is the public half of an age identity.
func recipientOf(id age.Identity) (string, error) {
	switch id := id.(type) {
	case *age.X25519Identity:
		return id.Recipient().String(), nil
	case *age.HybridIdentity:
		return id.Recipient().String(), nil
	}
	return "", withHints(errors.New("an SSH key is its own recipient"), "print the public key: ssh-keygen -y -f FILE")
}

// warnReadable tells when others on this machine can read a private key. Windows
// has no such mode bits.
func warnReadable(name string) {
	if name == "-" || runtime.GOOS == "windows" {
		return
	}
	info, err := os.Stat(name)
	if err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		warningf("identity %q: others can read it (mode %04o)", name, info.Mode().Perm())
		hintf("chmod 600 %q", name)
	}
}
