// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// read returns a file of testdata. All keys there were made for these tests, by
// ssh-keygen and puttygen; the locked ones have the passphrase "correct horse".
func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parse(t testing.TB, s string) seal.Recipient {
	t.Helper()
	r, err := seal.ParseRecipient(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseRecipient(t *testing.T) {
	_, x25519, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	_, hybrid, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	tag, tagPQ := newTagIdentity(t).recipient, newTagPQIdentity(t).recipient
	for _, tt := range []struct {
		text  string
		kind  seal.Kind
		class seal.Class
		ssh   bool
	}{
		{x25519, seal.X25519, seal.Classic, false},
		{" \t" + x25519 + "\r\n", seal.X25519, seal.Classic, false},
		{hybrid, seal.Hybrid, seal.PostQuantum, false},
		{tag, seal.Tag, seal.Classic, false},
		{tagPQ, seal.TagPQ, seal.PostQuantum, false},
		{read(t, "ed25519.pub"), seal.SSHEd25519, seal.Classic, true},
		{read(t, "rsa.pub"), seal.SSHRSA, seal.Classic, true},
		{strings.Replace(read(t, "rsa.pub"), " ", "\t", 1), seal.SSHRSA, seal.Classic, true},
	} {
		r, err := seal.ParseRecipient(tt.text)
		if err != nil {
			t.Errorf("%.30q: %v", tt.text, err)
			continue
		}
		if r.Kind() != tt.kind || r.Class() != tt.class || r.IsSSH() != tt.ssh {
			t.Errorf("%.30q: kind %v, class %v, SSH %t; want %v, %v, %t", tt.text, r.Kind(), r.Class(), r.IsSSH(), tt.kind, tt.class, tt.ssh)
		}
		if !strings.HasPrefix(r.String(), tt.kind.String()) || strings.ContainsAny(r.String(), "\r\n\t") {
			t.Errorf("String %q", r)
		}
		again := parse(t, r.String())
		if again.String() != r.String() || again.Hash() != r.Hash() {
			t.Errorf("%.30q: String does not parse to the same", tt.text)
		}
		if n := utf8.RuneCountInString(r.Short()); n > 66 || !tt.ssh && len(r.Short()) > 25 {
			t.Errorf("Short %q of %d columns", r.Short(), n)
		}
		if h := r.Hash(); len(h) != len("sha256:")+16 || !strings.HasPrefix(h, "sha256:") {
			t.Errorf("Hash %q", h)
		}
	}
}

// TestRecipientOfSSHKey holds that the comment is no part of a recipient.
func TestRecipientOfSSHKey(t *testing.T) {
	line := read(t, "ed25519.pub")
	f := strings.Fields(line)
	a, b := parse(t, line), parse(t, f[0]+" "+f[1])
	if a.String() != b.String() || a.String() != f[0]+" "+f[1] || a.Hash() != b.Hash() {
		t.Errorf("%q and %q differ", a, b)
	}
	// ssh-keygen -l -f testdata/ed25519.pub
	if want := "ssh-ed25519 SHA256:E1TDYp/d3V55wTu8VECrK9r+aKTi2Ywg/2HgUO3nJ8E"; a.Short() != want {
		t.Errorf("Short %q; want %q", a.Short(), want)
	}
	// printf '%s' "$(cut -d' ' -f1,2 testdata/ed25519.pub)" | sha256sum
	if want := "sha256:fac40dcc64159014"; a.Hash() != want {
		t.Errorf("Hash %q; want %q", a.Hash(), want)
	}
}

func TestParseRecipientErrors(t *testing.T) {
	identity, x25519, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	hybridIdentity, hybrid, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	tag := newTagIdentity(t).recipient
	ed := read(t, "ed25519.pub")
	for name, tt := range map[string]struct {
		text string
		err  error
	}{
		"empty":                 {"", seal.ErrUnknownRecipient},
		"a name":                {"alice@example.com", seal.ErrUnknownRecipient},
		"github":                {"github:alice", seal.ErrUnknownRecipient},
		"upper case":            {strings.ToUpper(x25519), seal.ErrUnknownRecipient},
		"two lines":             {ed + ed, seal.ErrUnknownRecipient},
		"escape sequence":       {x25519 + "\x1b[2J", seal.ErrUnknownRecipient},
		"too long":              {"age1" + strings.Repeat("q", 8<<10), seal.ErrUnknownRecipient},
		"options before":        {"no-pty " + ed, seal.ErrKeyOptions},
		"X25519 cut short":      {x25519[:60], seal.ErrBadRecipient},
		"X25519 mistyped":       {x25519[:20] + swap(x25519[20]) + x25519[21:], seal.ErrBadRecipient},
		"X25519 with more":      {x25519 + " alice", seal.ErrBadRecipient},
		"hybrid cut short":      {hybrid[:1900], seal.ErrBadRecipient},
		"tag cut short":         {tag[:50], seal.ErrBadRecipient},
		"age1":                  {"age1", seal.ErrBadRecipient},
		"SSH cut short":         {ed[:60], seal.ErrBadRecipient},
		"SSH without key":       {"ssh-ed25519", seal.ErrBadRecipient},
		"SSH of another type":   {strings.Replace(ed, "ssh-ed25519", "ssh-rsa", 1), seal.ErrBadRecipient},
		"SSH RSA of 1024 bits":  {read(t, "rsa1024.pub"), seal.ErrShortRSA},
		"SSH ECDSA":             {read(t, "ecdsa.pub"), seal.ErrUnsupportedSSH},
		"SSH DSA":               {read(t, "dsa.pub"), seal.ErrUnsupportedSSH},
		"SSH certificate":       {"ssh-ed25519-cert-v01@openssh.com AAAA", seal.ErrUnsupportedSSH},
		"security key":          {"sk-ssh-ed25519@openssh.com AAAA alice", seal.ErrUnsupportedSSH},
		"security key, ECDSA":   {"sk-ecdsa-sha2-nistp256@openssh.com AAAA", seal.ErrUnsupportedSSH},
		"plugin":                {yubikey(t), seal.ErrPlugin},
		"identity":              {identity, seal.ErrIdentityAsRecipient},
		"identity, lower case":  {strings.ToLower(identity), seal.ErrIdentityAsRecipient},
		"identity after a name": {"alice: " + identity, seal.ErrIdentityAsRecipient},
		"hybrid identity":       {hybridIdentity, seal.ErrIdentityAsRecipient},
		"plugin identity":       {"AGE-PLUGIN-YUBIKEY-1QQPQPQ", seal.ErrIdentityAsRecipient},
		"SSH private key":       {read(t, "ed25519"), seal.ErrIdentityAsRecipient},
		"PuTTY private key":     {read(t, "ed25519.ppk"), seal.ErrIdentityAsRecipient},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := seal.ParseRecipient(tt.text)
			if !errors.Is(err, tt.err) {
				t.Fatalf("%v; want %v", err, tt.err)
			}
			for _, other := range []error{seal.ErrUnknownRecipient, seal.ErrBadRecipient, seal.ErrIdentityAsRecipient, seal.ErrUnsupportedSSH, seal.ErrPlugin, seal.ErrShortRSA, seal.ErrKeyOptions} {
				if other != tt.err && errors.Is(err, other) {
					t.Errorf("it is %v as well", other)
				}
			}
			if !strings.Contains(err.Error(), "; ") {
				t.Errorf("no remedy in %q", err)
			}
			secret := strings.ToUpper(tt.text)
			if tt.err == seal.ErrIdentityAsRecipient && strings.Contains(strings.ToUpper(err.Error()), secret[max(0, len(secret)-10):]) ||
				len(err.Error()) > 300 || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("the error %q shows too much", err)
			}
		})
	}
}

// TestSaysWhichKinds: whoever has brought what cannot be used reads why, and all
// that can.
func TestSaysWhichKinds(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		why  string
	}{
		"a name":              {"alice", ""},
		"plugin":              {yubikey(t), "age-plugin-yubikey"},
		"SSH ECDSA":           {read(t, "ecdsa.pub"), "ECDSA"},
		"SSH DSA":             {read(t, "dsa.pub"), "cannot decrypt"},
		"SSH certificate":     {"ssh-rsa-cert-v01@openssh.com AAAA", "cannot decrypt"},
		"security key":        {"sk-ssh-ed25519@openssh.com AAAA", "security key"},
		"security key, ECDSA": {"sk-ecdsa-sha2-nistp256@openssh.com AAAA", "security key"},
	} {
		_, err := seal.ParseRecipient(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%s: %v; want a word of %q", name, err, tt.why)
			continue
		}
		for k := seal.X25519; k.String() != "no kind"; k++ {
			begins := k.String()
			if !strings.HasPrefix(begins, "ssh-") && k != seal.X25519 {
				begins += "1" // after the name of a native kind
			}
			if !regexp.MustCompile(`\b` + begins + `\b`).MatchString(err.Error()) {
				t.Errorf("%s: %v; names no %s", name, err, begins)
			}
		}
	}
}

// swap gives another character of bech32.
func swap(c byte) string {
	if c == 'q' {
		return "p"
	}
	return "q"
}

func TestZeroRecipient(t *testing.T) {
	var r seal.Recipient
	if r.Class() != 0 || r.Kind() != 0 || r.IsSSH() || r.String() != "" {
		t.Errorf("zero Recipient is something: %v, %v", r.Class(), r.Kind())
	}
	if _, err := seal.Seal(nil, []seal.Recipient{r}); !errors.Is(err, seal.ErrBadRecipient) {
		t.Errorf("sealed to the zero Recipient: %v", err)
	}
}

func TestCheckClasses(t *testing.T) {
	_, x, err := seal.GenerateX25519()
	if err != nil {
		t.Fatal(err)
	}
	_, h, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	x25519, hybrid := parse(t, x), parse(t, h)
	tag, tagPQ := parse(t, newTagIdentity(t).recipient), parse(t, newTagPQIdentity(t).recipient)
	ssh := parse(t, read(t, "ed25519.pub"))
	for _, tt := range []struct {
		rs  []seal.Recipient
		err error
	}{
		{nil, nil},
		{[]seal.Recipient{hybrid}, nil},
		{[]seal.Recipient{x25519, tag, ssh}, nil},
		{[]seal.Recipient{hybrid, tagPQ}, nil},
		{[]seal.Recipient{hybrid, x25519}, seal.ErrMixedClasses},
		{[]seal.Recipient{ssh, hybrid}, seal.ErrMixedClasses},
		{[]seal.Recipient{hybrid, hybrid, tag}, seal.ErrMixedClasses},
		{[]seal.Recipient{tag, tagPQ}, seal.ErrMixedClasses},
	} {
		if err := seal.CheckClasses(tt.rs); !errors.Is(err, tt.err) {
			t.Errorf("%v; want %v", err, tt.err)
		}
		if len(tt.rs) == 0 {
			continue
		}
		if _, err := seal.Seal([]byte("x"), tt.rs); !errors.Is(err, tt.err) {
			t.Errorf("Seal: %v; want %v", err, tt.err)
		}
	}
}

func FuzzParseRecipient(f *testing.F) {
	for _, s := range []string{"age1", "age1tag1", "age1pq1", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1", "sk-ssh-ed25519@openssh.com AAAA"} {
		f.Add(s)
	}
	f.Add(read(f, "ed25519.pub"))
	f.Add(read(f, "rsa.pub"))
	f.Add(yubikey(f))
	f.Fuzz(func(t *testing.T, s string) {
		r, err := seal.ParseRecipient(s)
		if err != nil {
			return
		}
		if again, err := seal.ParseRecipient(r.String()); err != nil || again.String() != r.String() {
			t.Errorf("%q parses, %q does not: %v", s, r, err)
		}
		_, _ = r.Short(), r.Hash()
	})
}
