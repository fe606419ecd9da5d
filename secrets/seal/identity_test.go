// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal_test

import (
	"bytes"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"filippo.io/age"
	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const passphrase = "correct horse"

// lock encrypts an identity file as age -p does, but with little work.
func lock(t testing.TB, identity string) []byte {
	t.Helper()
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	r.SetWorkFactor(2)
	var b bytes.Buffer
	w, err := age.Encrypt(&b, r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(identity)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A desk answers prompts and remembers them.
type desk struct {
	answer string
	err    error
	asked  []string
	given  []byte
}

func (d *desk) ask(prompt string) ([]byte, error) {
	d.asked = append(d.asked, prompt)
	d.given = []byte(d.answer)
	return d.given, d.err
}

func TestParseIdentities(t *testing.T) {
	x, xr, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	h, hr, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	file := "# created: 2026-08-24\n# public key: " + xr + "\n\n" + x + "\n"
	for name, tt := range map[string]struct {
		data       []byte
		recipients []string
		locked     bool
	}{
		"one":                {[]byte(x), []string{xr}, false},
		"as age-keygen":      {[]byte(file), []string{xr}, false},
		"CRLF":               {[]byte(strings.ReplaceAll(file, "\n", "\r\n")), []string{xr}, false},
		"byte order mark":    {[]byte("\ufeff" + x), []string{xr}, false},
		"blanks":             {[]byte("\n  " + x + " \n"), []string{xr}, false},
		"hybrid":             {[]byte(h), []string{hr}, false},
		"both":               {[]byte(x + "\n" + h + "\n"), []string{xr, hr}, false},
		"locked":             {lock(t, file), []string{xr}, true},
		"locked, armored":    {mustArmor(t, lock(t, file)), []string{xr}, true},
		"locked, CRLF":       {bytes.ReplaceAll(mustArmor(t, lock(t, file)), []byte("\n"), []byte("\r\n")), []string{xr}, true},
		"ssh-ed25519":        {[]byte(read(t, "ed25519")), []string{read(t, "ed25519.pub")}, false},
		"ssh-ed25519, CRLF":  {[]byte(strings.ReplaceAll(read(t, "ed25519"), "\n", "\r\n")), []string{read(t, "ed25519.pub")}, false},
		"ssh-ed25519 locked": {[]byte(read(t, "ed25519_locked")), []string{read(t, "ed25519_locked.pub")}, true},
		"ssh-rsa":            {[]byte(read(t, "rsa")), []string{read(t, "rsa.pub")}, false},
		"PEM locked":         {[]byte(read(t, "rsa_pem_locked")), []string{read(t, "rsa_pem_locked.pub")}, true},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{answer: passphrase}
			ids, err := seal.ParseIdentities(tt.data, d.ask)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.asked) > 1 || (len(d.asked) == 1) != tt.locked {
				t.Errorf("asked %d times", len(d.asked))
			}
			if bytes.ContainsFunc(d.given, func(r rune) bool { return r != 0 }) {
				t.Error("the passphrase is left in memory")
			}
			if len(ids) != len(tt.recipients) {
				t.Fatalf("%d identities; want %d", len(ids), len(tt.recipients))
			}
			for i, r := range tt.recipients {
				got, err := seal.Open(mustSeal(t, []byte("the card"), parse(t, r)), ids[i])
				if err != nil || string(got) != "the card" {
					t.Errorf("identity %d does not open: %v", i+1, err)
				}
			}
			if !tt.locked {
				return
			}
			if _, err := seal.ParseIdentities(tt.data, (&desk{answer: "wrong"}).ask); !errors.Is(err, seal.ErrPassphrase) || errors.Is(err, seal.ErrDamaged) {
				t.Errorf("with a wrong passphrase: %v; want ErrPassphrase", err)
			}
			if _, err := seal.ParseIdentities(tt.data, (&desk{}).ask); !errors.Is(err, seal.ErrPassphrase) {
				t.Errorf("with an empty passphrase: %v; want ErrPassphrase", err)
			}
			if _, err := seal.ParseIdentities(tt.data, nil); !errors.Is(err, seal.ErrPassphrase) {
				t.Errorf("with nobody to ask: %v; want ErrPassphrase", err)
			}
			gone := errors.New("gone")
			if _, err := seal.ParseIdentities(tt.data, (&desk{err: gone}).ask); !errors.Is(err, gone) {
				t.Errorf("the desk's error is lost: %v", err)
			}
		})
	}
}

func TestParseIdentitiesErrors(t *testing.T) {
	x, xr, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	ed := read(t, "ed25519")
	envelope := mustSeal(t, []byte(x), parse(t, xr))
	locked := lock(t, x)
	for name, tt := range map[string]struct {
		data []byte
		err  error
	}{
		"nothing":             {nil, seal.ErrNoIdentity},
		"comments":            {[]byte("# nothing\n"), seal.ErrNoIdentity},
		"a name":              {[]byte("alice\n"), seal.ErrNoIdentity},
		"cut short":           {[]byte(x[:70]), seal.ErrNoIdentity},
		"mistyped":            {[]byte(x[:30] + strings.ToUpper(swap(x[30]|0x20)) + x[31:]), seal.ErrNoIdentity},
		"lower case":          {[]byte(strings.ToLower(x)), seal.ErrNoIdentity},
		"and something else":  {[]byte(x + "\nsomething\n"), seal.ErrNoIdentity},
		"recipient":           {[]byte(xr), seal.ErrRecipientAsIdentity},
		"SSH public key":      {[]byte(read(t, "ed25519.pub")), seal.ErrRecipientAsIdentity},
		"SSH ECDSA":           {[]byte(read(t, "ecdsa")), seal.ErrUnsupportedSSH},
		"security key":        {securityKey("none"), seal.ErrUnsupportedSSH},
		"security key locked": {securityKey("aes256-ctr"), seal.ErrUnsupportedSSH},
		"SSH cut short":       {[]byte(ed[:200]), seal.ErrNoIdentity},
		"certificate":         {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), seal.ErrNoIdentity},
		"PuTTY":               {[]byte(read(t, "ed25519.ppk")), seal.ErrPPK},
		"PuTTY, version 2":    {[]byte("PuTTY-User-Key-File-2: ssh-rsa\r\nEncryption: aes256-cbc\r\n"), seal.ErrPPK},
		"PuTTY, blanks":       {[]byte("\ufeff\r\nPuTTY-User-Key-File-3: ssh-rsa\r\n"), seal.ErrPPK},
		"plugin":              {[]byte("AGE-PLUGIN-YUBIKEY-1QQPQPQ\n"), seal.ErrPlugin},
		"envelope":            {envelope, seal.ErrNoIdentity},
		"envelope, armored":   {mustArmor(t, envelope), seal.ErrNoIdentity},
		"locked, cut short":   {locked[:len(locked)-5], seal.ErrDamaged},
		"locked, no identity": {lock(t, "nothing"), seal.ErrNoIdentity},
		"too large":           {make([]byte, seal.MaxSize+1), seal.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			d := &desk{answer: passphrase}
			ids, err := seal.ParseIdentities(tt.data, d.ask)
			if strings.HasPrefix(name, "security key") && len(d.asked) > 0 {
				t.Error("somebody is asked for a passphrase in vain")
			}
			if ids != nil || !errors.Is(err, tt.err) {
				t.Fatalf("%d identities, %v; want %v", len(ids), err, tt.err)
			}
			for _, other := range []error{seal.ErrNoIdentity, seal.ErrRecipientAsIdentity, seal.ErrPPK, seal.ErrPlugin, seal.ErrUnsupportedSSH, seal.ErrPassphrase} {
				if other != tt.err && errors.Is(err, other) {
					t.Errorf("it is %v as well", other)
				}
			}
			if strings.Contains(err.Error(), x[20:30]) || len(err.Error()) > 300 {
				t.Errorf("the error %q shows too much", err)
			}
		})
	}
}

// securityKey is the file that ssh-keygen -t ed25519-sk writes (PROTOCOL.key and
// PROTOCOL.u2f of OpenSSH), as far as it is never locked.
func securityKey(cipher string) []byte {
	public := ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, make([]byte, 32), "ssh:"})
	file := append([]byte("openssh-key-v1\x00"), ssh.Marshal(struct {
		Cipher, KDF, KDFOptions string
		Keys                    uint32
		Public, Private         []byte
	}{cipher, "none", "", 1, public, make([]byte, 64)})...)
	return pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: file})
}

func FuzzParseIdentities(f *testing.F) {
	x, _, err := seal.GenerateX25519()
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("# a\r\n" + x))
	f.Add(lock(f, x))
	for _, name := range []string{"ed25519", "ed25519_locked", "rsa_pem_locked", "ecdsa", "ed25519.ppk", "ed25519.pub"} {
		f.Add([]byte(read(f, name)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// Nobody to ask: a passphrase costs as much work as the file says.
		ids, err := seal.ParseIdentities(data, nil)
		if (err == nil) != (len(ids) > 0) {
			t.Errorf("%d identities and %v", len(ids), err)
		}
	})
}
