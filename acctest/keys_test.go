// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// kinds are all kinds of login keys, weakest first, and which of them
// sshd.algorithms lets in.
var kinds = []struct {
	kind               login.Kind
	compatible, strict bool
}{
	{login.RSA1024, false, false},
	{login.RSA2048, true, false},
	{login.RSA3072, true, true},
	{login.ECDSA256, true, false},
	{login.SKECDSA256, true, false},
	{login.Ed25519, true, true},
	{login.SKEd25519, true, true},
}

// kindKeys are keys of all kinds, made once: the long ones take a second.
var kindKeys = sync.OnceValues(func() (map[login.Kind]*login.Key, error) {
	keys := map[login.Kind]*login.Key{}
	for _, k := range kinds {
		key, err := login.NewKeyOf(k.kind)
		if err != nil {
			return nil, err
		}
		keys[k.kind] = key
	}
	return keys, nil
})

// People log in with the keys they have, and a code: by algorithms "compatible"
// all but RSA of 1024 bits, by "strict" RSA from 3072 bits and Ed25519. Each kind
// is of a user of its own, so that nobody waits for a code.
func TestKindsOfKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		recipe rootfs.Recipe
		strict bool                // there is something left for it
		weak   map[login.Kind]bool // let in since this sshd cannot refuse it
	}{
		{rootfs.Debian11, false, map[login.Kind]bool{login.RSA1024: true}}, // RequiredRSASize is of OpenSSH 9.1
		{rootfs.Debian12, true, nil},
		{rootfs.Debian13, true, nil},
	} {
		t.Run(tt.recipe.Suite, func(t *testing.T) {
			t.Parallel()
			m := newMachineOf(t, tt.recipe)
			accounts := m.enrollKinds()
			m.tryKinds(accounts, func(i int) bool { return kinds[i].compatible || tt.weak[kinds[i].kind] }, m.patient()...)
			if !tt.strict {
				return
			}
			if _, err := bakeRoot(t.Context(), m.Root, m.img.policy+"sshd: {algorithms: strict}\n"); err != nil {
				t.Fatal(err)
			}
			// The client has no post-quantum key exchange of OpenSSH before 9.9; this is about keys.
			m.tryKinds(accounts, func(i int) bool { return kinds[i].strict }, append(m.patient(), "-o", "KexAlgorithms=curve25519-sha256")...)
		})
	}
}

// enrollKinds gives the machine a user for each kind of key, named after it, and
// enrolls them.
func (m *machine) enrollKinds() []login.Account {
	m.t.Helper()
	keys, err := kindKeys()
	if err != nil {
		m.t.Fatal(err)
	}
	owner := m.img.people["alice"]
	layer := "version: 1\nusers:\n"
	var accounts []login.Account
	for _, k := range kinds {
		a := login.Account{User: string(k.kind), Key: keys[k.kind]}
		if err := m.AddUser(m.t.Context(), rootfs.User{Name: a.User, Keys: []string{a.Key.Public}}); err != nil {
			m.t.Fatal(err)
		}
		layer += fmt.Sprintf("  - {name: %s, recipients: [%s]}\n", a.User, owner.recipient)
		accounts = append(accounts, a)
	}
	m.instancePolicy(layer)
	m.ok("enroll")
	m.ok("deliver")
	for i, a := range accounts {
		c := m.openAs(owner, a.User, m.envelope(a.User))
		accounts[i].Codes = login.NewCodes(c.Secret, c.BackupCodes)
	}
	return accounts
}

// tryKinds logs in with each of them, a few at once: sshd accepts five connections before
// the login from one source.
func (m *machine) tryKinds(accounts []login.Account, in func(i int) bool, options ...string) {
	t := m.t
	t.Helper()
	sshd, err := m.StartSSHD(t.Context(), options...)
	if err != nil {
		t.Fatal(err)
	}
	hostKeys, err := m.HostKeys()
	if err != nil {
		t.Fatal(err)
	}
	server := login.Server{Host: sshd.Host, Port: sshd.Port, HostKeys: hostKeys}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 3)
	for i, a := range accounts {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			got, err := login.Enter(t.Context(), login.Go{}, server, a)
			if err != nil {
				t.Errorf("%s: %v", a.User, err)
				return
			}
			want := login.Unasked // without a key that is taken nobody asks for a code
			if in(i) {
				want = login.In
			}
			if got.Outcome != want || want == login.In && (len(got.Prompts) != 1 || !strings.Contains(got.Prompts[0], "Verification code:")) {
				t.Errorf("%s: %v, prompts %q; want %v", a.User, got, got.Prompts, want)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Logf("sshd:\n%s", sshd.Log())
	}
	if err := sshd.Stop(); err != nil {
		t.Error(err)
	}
}
