// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// newest opens all of a user's envelopes and returns the card of the highest
// generation.
func (m *machine) newest(user string) card.Card {
	m.t.Helper()
	var newest card.Card
	for _, name := range m.list(envelopes) {
		if !strings.HasPrefix(name, user+".") {
			continue
		}
		if c := m.open(user, m.Path(envelopes+"/"+name)); c.Generation > newest.Generation {
			newest = c
		}
	}
	if newest.ID == "" {
		m.t.Fatalf("no envelope of %s among %v", user, m.list(envelopes))
	}
	return newest
}

// enters tries a card's next code, for the user's sake with the fastest client.
func (m *machine) enters(s login.Server, c card.Card, codes *login.Codes) login.Outcome {
	m.t.Helper()
	a := login.Account{User: c.User, Key: m.img.people[c.User].key, Codes: codes}
	r, err := login.Enter(m.t.Context(), login.Go{}, s, a)
	if err != nil {
		m.t.Fatal(err)
	}
	if r.Outcome == login.Failed {
		m.t.Fatalf("%s: %v", c.User, r)
	}
	return r.Outcome
}

func TestResetKillsTheOldSecret(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cards := m.firstBoot()
	old := cards["alice"]
	server := m.serve(old)
	oldCodes := login.NewCodes(old.Secret, old.BackupCodes)
	if got := m.enters(server, old, oldCodes); got != login.In {
		t.Fatalf("before the reset: %v", got)
	}
	m.ok("reset", "alice")
	m.ok("deliver")
	fresh := m.newest("alice")
	if fresh.Generation != old.Generation+1 || fresh.Supersedes != old.ID || fresh.ID == old.ID {
		t.Errorf("generation %d of %s supersedes %s; the old one is generation %d, %s",
			fresh.Generation, fresh.ID, fresh.Supersedes, old.Generation, old.ID)
	}
	if fresh.Secret == old.Secret || slices.ContainsFunc(fresh.BackupCodes, func(c string) bool { return slices.Contains(old.BackupCodes, c) }) {
		t.Error("the new card holds old secrets")
	}
	if got := m.enters(server, fresh, login.NewCodes(fresh.Secret, fresh.BackupCodes)); got != login.In {
		t.Errorf("with the new secret: %v", got)
	}
	if got := m.enters(server, old, oldCodes); got != login.Refused {
		t.Errorf("with the old secret: %v", got)
	}
	r := login.Go{}.Login(t.Context(), server, login.Try{User: "alice", Key: m.img.people["alice"].key,
		Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: old.BackupCodes[:1]})
	if r.Outcome != login.Refused {
		t.Errorf("with an old backup code: %v", r)
	}
	// Nobody else has noticed.
	bob := cards["bob"]
	if got := m.enters(server, bob, login.NewCodes(bob.Secret, bob.BackupCodes)); got != login.In {
		t.Errorf("bob: %v", got)
	}
	if got := m.leaks(map[string]card.Card{"old": old}); len(got) != 0 {
		t.Errorf("the dead secret is still in %v", got)
	}
}

func TestResetRefusesUnknownUsers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.firstBoot()
	before := snapshot(t, m.Path(pamStates))
	for _, name := range []string{"nobody-here", "../alice", "alice/../bob", "-x", "carol", ""} {
		if s := m.agent("reset", "--", name); s.code == 0 {
			t.Errorf("reset %q succeeded", name)
		}
	}
	if got := changed(before, snapshot(t, m.Path(pamStates))); len(got) != 0 {
		t.Errorf("changed %v", got)
	}
}

// The disk of a machine that nobody can log in to, mounted in a rescue system.
func TestResetOnADiskMountedElsewhere(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	old := m.firstBoot()["alice"]
	agent, err := lab.agent()
	if err != nil {
		t.Fatal(err)
	}
	rescuer, err := newPerson(m.dir, "rescuer", true)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), agent, "reset", "--root", m.Dir(), "--recipient", rescuer.recipient, "alice")
	s := run(t, cmd)
	if s.code != 0 {
		t.Fatalf("exit %d\n%s", s.code, s.err)
	}
	// What it prints is the envelope, for whoever is at work there.
	file := filepath.Join(m.dir, "envelope.age")
	if err := os.WriteFile(file, []byte(s.out), 0o600); err != nil {
		t.Fatal(err)
	}
	fresh := m.openAs(rescuer, "alice", file)
	if fresh.Supersedes != old.ID || fresh.Generation != old.Generation+1 {
		t.Errorf("generation %d supersedes %s, want that of %s", fresh.Generation, fresh.Supersedes, old.ID)
	}
	m.ok("enroll") // the disk is back in its machine
	server := m.serve(fresh)
	if got := m.enters(server, fresh, login.NewCodes(fresh.Secret, nil)); got != login.In {
		t.Errorf("with the new secret: %v", got)
	}
	if got := m.enters(server, old, login.NewCodes(old.Secret, nil)); got != login.Refused {
		t.Errorf("with the old secret: %v", got)
	}
	needles := map[string]card.Card{"alice": fresh}
	if got, want := m.leaks(needles), []string{"var/lib/google-authenticator/alice"}; !slices.Equal(got, want) {
		t.Errorf("the secret is in %v, want %v", got, want)
	}
}
