// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/leak"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

func testPeople(t *testing.T) []*Person {
	t.Helper()
	var people []*Person
	for _, name := range []string{"alice", "carol"} {
		key, err := login.NewKey(t.TempDir(), name)
		if err != nil {
			t.Fatal(err)
		}
		people = append(people, &Person{Name: name, Key: key, Password: "pa: #ss"})
	}
	var err error
	if people[0].Identity, people[0].Recipient, err = seal.GenerateX25519(); err != nil {
		t.Fatal(err)
	}
	return people
}

func TestUserData(t *testing.T) {
	people := testPeople(t)
	data, err := userData(people, make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	c, p := instancePolicy(t, []byte(data))
	if len(c.Users) != 2 || c.Users[1].Name != "carol" || c.Users[1].Keys[0] != people[1].Key.Public {
		t.Errorf("accounts %+v", c.Users)
	}
	if len(p.Users) != 1 || p.Users[0].Name != "alice" || p.Users[0].Recipients[0] != people[0].Recipient {
		t.Errorf("enrolled %+v", p.Users)
	}
	if p.Token != strings.Repeat("A", 22) {
		t.Errorf("token %q", p.Token)
	}
	if strings.Contains(data, people[0].Identity) {
		t.Error("an identity is in user-data")
	}
}

func TestEnvelopes(t *testing.T) {
	i := &Instance{dir: t.TempDir(), People: testPeople(t)}
	if list, err := i.Envelopes(); err != nil || len(list) != 0 {
		t.Errorf("nothing received: %v, %v", list, err)
	}
	touch(t, i.ReceivedDir(), "alice-abc.age", "")
	touch(t, i.ReceivedDir(), ".partial", "")
	list, err := i.Envelopes()
	if err != nil || len(list) != 1 || list[0].Owner != i.People[0] || list[0].ID != "abc" {
		t.Errorf("got %+v, %v", list, err)
	}
	touch(t, i.ReceivedDir(), "carol-def.age", "")
	if _, err := i.Envelopes(); !errors.Is(err, ErrCard) {
		t.Errorf("for somebody who is not enrolled: %v", err)
	}
}

func TestCheck(t *testing.T) {
	i := &Instance{lab: &Lab{Issuer: "Example"}, token: []byte("0123456789abcdef"), seed: vm.Seed{InstanceID: "i-1", Hostname: "web1"}}
	e := Envelope{Owner: &Person{Name: "alice"}, ID: "abc"}
	good := card.Card{User: "alice", ID: "abc", Hostname: "web1", InstanceID: "i-1", Issuer: "Example", Token: card.TokenMAC(i.token, "alice")}
	if err := i.check(good, e); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*card.Card){
		"user":        func(c *card.Card) { c.User = "bob" },
		"id":          func(c *card.Card) { c.ID = "abd" },
		"hostname":    func(c *card.Card) { c.Hostname = "web2" },
		"instance id": func(c *card.Card) { c.InstanceID = "" },
		"issuer":      func(c *card.Card) { c.Issuer = "" },
		"token":       func(c *card.Card) { c.Token = card.TokenMAC(i.token, "bob") },
	} {
		c := good
		change(&c)
		if err := i.check(c, e); !errors.Is(err, ErrCard) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

const (
	secretA = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
	secretB = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
	state   = "\n\" RATE_LIMIT 3 30\n\" WINDOW_SIZE 3\n\" DISALLOW_REUSE\n\" TOTP_AUTH\n12345678\n"
)

func touch(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// testSearch has two cards, and their state files in a tree.
func testSearch(t *testing.T) (s *search, tree string) {
	t.Helper()
	s = &search{cards: []card.Card{
		{User: "alice", Secret: secretA, BackupCodes: []string{"12345678"}},
		{User: "bob", Secret: secretB},
	}}
	var all []*leak.Needles
	for _, c := range s.cards {
		n, err := leak.New(c.Secret, c.BackupCodes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	s.needles = leak.Join(all...)
	tree = t.TempDir()
	touch(t, tree, stateDir+"/alice", secretA+state)
	touch(t, tree, stateDir+"/bob", secretB+state)
	touch(t, tree, "etc/motd", "hello")
	return s, tree
}

func TestSearchFiles(t *testing.T) {
	tests := []struct {
		name   string
		change func(tree string)
		ok     bool
	}{
		{"as it should be", func(string) {}, true},
		{"in a log", func(tree string) { touch(t, tree, "var/log/syslog", "otpauth://totp/x?secret="+secretA) }, false},
		{"a backup code in a home", func(tree string) { touch(t, tree, "home/alice/x", "12345678") }, false},
		{"no state file", func(tree string) { os.Remove(filepath.Join(tree, stateDir, "bob")) }, false},
		{"each other's", func(tree string) {
			touch(t, tree, stateDir+"/alice", secretB+"\n")
			touch(t, tree, stateDir+"/bob", secretA+"\n")
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, tree := testSearch(t)
			tt.change(tree)
			if err := s.files(tree); err != nil {
				t.Fatal(err)
			}
			if s.places[0].OK != tt.ok {
				t.Errorf("%+v", s.places[0])
			}
			if text := ShowPlaces(s.places); strings.Contains(text, secretA) || strings.Contains(text, "12345678") {
				t.Errorf("what it shows holds what it found: %s", text)
			}
		})
	}
}

func TestSearchNowhere(t *testing.T) {
	s, dir := testSearch(t)
	touch(t, dir, "clean/log", "nothing")
	touch(t, dir, "dirty/log", strings.ToLower(secretB))
	touch(t, dir, "empty/log", "")
	for _, name := range []string{"clean", "dirty", "empty"} {
		if err := s.nowhere(name, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []bool{true, false, false} { // a search of nothing proves nothing
		if s.places[i].OK != want {
			t.Errorf("%+v", s.places[i])
		}
	}
	if err := s.nowhere("missing", filepath.Join(dir, "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
}

func TestIsState(t *testing.T) {
	s, _ := testSearch(t)
	for text, want := range map[string]bool{
		secretA + state: true,
		"JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXQ" + state: false,
		"x" + secretA + state:                      false,
		"secret: " + secretA:                       false,
		"":                                         false,
	} {
		if got := s.isState([]byte(text)); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestOutputFails(t *testing.T) {
	_, err := output(t.Context(), t.TempDir(), "sh", "-c", "echo card; echo reason >&2; exit 1")
	if err == nil || !strings.Contains(err.Error(), "reason") || strings.Contains(err.Error(), "card") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := output(ctx, t.TempDir(), "true"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
