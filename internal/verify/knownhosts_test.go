// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"encoding/base64"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func knownFile(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// blob is a public key of a type that nothing reads.
func blob(typ string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00" + string(rune(len(typ))) + typ + "\x00\x00\x00\x00"))
}

// TestKnownHostsSkips: one line that cannot be read costs that line, and no other.
func TestKnownHostsSkips(t *testing.T) {
	key := newKey(t).PublicKey()
	good := "web.example " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	words := strings.Fields(good)
	for name, tt := range map[string]struct {
		line    string
		skipped error
	}{
		"comment":                    {"# web2.example", nil},
		"blank":                      {" \t", nil},
		"comment with several words": {"other.example " + words[1] + " " + words[2] + " root on the old server, 2019", nil},
		"certificate authority":      {"@cert-authority * " + words[1] + " " + words[2], nil},
		"bad base64":                 {"other.example ssh-ed25519 !!!notbase64!!!", errKnownLine},
		"cut short":                  {"other.example ssh-ed25519 " + words[2][:40], errKnownLine},
		"bad base64, this host":      {"web.example ssh-ed25519 !!!notbase64!!!", errKnownLine},
		"another type than the key":  {"other.example ssh-rsa " + words[2], errKnownLine},
		"unknown type":               {"other.example ssh-xmss@openssh.com " + blob("ssh-xmss@openssh.com"), errKnownType},
		"unknown type, revoked":      {"@revoked * ssh-xmss@openssh.com " + blob("ssh-xmss@openssh.com"), errKnownType},
		"a known type, no key":       {"other.example ssh-ed25519 " + blob("ssh-ed25519"), errKnownLine},
		"one word":                   {"other.example", errKnownLine},
		"two words":                  {"other.example ssh-ed25519", errKnownLine},
		"unknown marker":             {"@trusted other.example " + words[1] + " " + words[2], errKnownLine},
		"two markers":                {"@cert-authority @revoked other.example " + words[1] + " " + words[2], errKnownLine},
		"a bracket alone":            {"[other.example " + words[1] + " " + words[2], errKnownLine},
		"a negation alone":           {"! " + words[1] + " " + words[2], errKnownLine},
		"another kind of hash":       {"|2|AAAA|AAAA " + words[1] + " " + words[2], errKnownLine},
		"a hash cut short":           {"|1|AAAA " + words[1] + " " + words[2], errKnownLine},
		"conflict of a merge":        {"<<<<<<< HEAD", errKnownLine},
		"protocol 1":                 {"other.example 1024 35 1234567890", errKnownLine},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := ReadKnownHosts(knownFile(t, tt.line+"\r\n"+good+"\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			if keys := k.Keys("web.example:22"); len(keys) != 1 || keys[0].Line != 2 || string(keys[0].Key.Marshal()) != string(key.Marshal()) {
				t.Errorf("keys %v", keys)
			}
			if tt.skipped == nil && len(k.Skipped()) > 0 || tt.skipped != nil && (len(k.Skipped()) != 1 || !errors.Is(k.Skipped()[0], tt.skipped)) {
				t.Errorf("skipped %v; want %v", k.Skipped(), tt.skipped)
			}
		})
	}
}

func TestKnownHostsErrors(t *testing.T) {
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(newKey(t).PublicKey())))
	for name, tt := range map[string]struct {
		text string
		err  error
	}{
		"empty":                      {"", nil},
		"comments":                   {"# nothing yet\n", nil},
		"an unknown type alone":      {"web.example ssh-xmss@openssh.com " + blob("ssh-xmss@openssh.com") + "\n", nil},
		"another kind of file":       {"nothing\nof the kind\n", errNoKnownLine},
		"a line of authorized_keys":  {key + "\n", errNoKnownLine},
		"binary":                     {strings.Repeat("\x00", 1<<17), errNoKnownLine},
		"a revoked key, cut short":   {"web.example " + key + "\n@revoked * " + key[:50] + "\n", errKnownLine},
		"a revoked key, no host":     {"web.example " + key + "\n@revoked " + key + "\n", errKnownLine},
		"a revoked key, not base 64": {"web.example " + key + "\n@revoked * ssh-ed25519 ????\n", errKnownLine},
	} {
		_, err := ReadKnownHosts(knownFile(t, tt.text))
		if !errors.Is(err, tt.err) || tt.err != nil && !errors.Is(err, ErrKnownHosts) {
			t.Errorf("%s: %v; want %v", name, err, tt.err)
		}
	}
	if _, err := ReadKnownHosts(filepath.Join(t.TempDir(), "none")); !errors.Is(err, ErrKnownHosts) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestKnownHostsMatch compares which lines are of a host with golang.org/x/crypto, for
// names that it takes as ssh does: in lower case.
func TestKnownHostsMatch(t *testing.T) {
	key := newKey(t).PublicKey()
	text := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	hosts := []string{"web.example:22", "web.example:2222", "192.0.2.7:22", "192.0.2.7:2222", "[2001:db8::7]:22", "[2001:db8::7]:2222", "db.example:22", "example:22", "w:22"}
	for _, field := range []string{
		"web.example", "*", "*.example", "w?b.example", "*.example,!web.example", "!web.example,*", "[web.example]:2222", "[*]:2222", "*:2222",
		"192.0.2.7", "192.0.2.*", "[192.0.2.7]:2222", "2001:db8::7", "[2001:db8::7]:2222", "[2001:db8::7]:22", "2001:db8::*", "web.example,192.0.2.7", ",web.example,",
		"w*e*e*e", "**", "?", "*?*?*", "web.exampl",
		knownhosts.HashHostname("web.example"), knownhosts.HashHostname("[web.example]:2222"), knownhosts.HashHostname("2001:db8::7"), knownhosts.HashHostname("[2001:db8::7]:2222"),
	} {
		name := knownFile(t, field+" "+text+"\n")
		theirs, err := knownhosts.New(name)
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		ours, err := ReadKnownHosts(name)
		if err != nil {
			t.Fatalf("%s: %v", field, err)
		}
		for _, host := range hosts {
			want := theirs(host, &net.TCPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 22}, key) == nil
			if got := len(ours.Keys(host)) == 1; got != want {
				t.Errorf("%s for %s: %t; x/crypto %t", field, host, got, want)
			}
		}
	}
	// What ssh takes otherwise than x/crypto: case, and a * that stands for nothing.
	for _, field := range []string{"Web.Example", "web.example*", "web.exampl?*"} {
		k, err := ReadKnownHosts(knownFile(t, field+" "+text+"\n"))
		if err != nil || len(k.Keys("WEB.example:22")) != 1 {
			t.Errorf("%s: %v", field, err)
		}
	}
}
