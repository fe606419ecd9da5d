// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// algorithmsOf reads what ssh -Q says on a system.
func algorithmsOf(t *testing.T, name string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		query, list, _ := strings.Cut(strings.TrimSpace(line), " ")
		m[query] = strings.ReplaceAll(list, ",", "\n")
	}
	return m
}

// The drop-in of each version of OpenSSH that the table has rows for.
func TestDropInGolden(t *testing.T) {
	for _, test := range []struct {
		version    target.OpenSSH
		algorithms map[string]string // nil: all that are wanted
		has, lacks []string
	}{
		{version: v(8, 4),
			has:   []string{"ChallengeResponseAuthentication yes", "PubkeyAcceptedKeyTypes "},
			lacks: []string{"PubkeyAcceptedAlgorithms", "RequiredRSASize", "PAMServiceName"}},
		{version: v(9, 2), algorithms: algorithmsOf(t, "openssh-9.2-debian12.algorithms"),
			has:   []string{"RequiredRSASize 2048", "PubkeyAcceptedAlgorithms ", "sntrup761x25519-sha512@openssh.com"},
			lacks: []string{"ChallengeResponse", "PubkeyAcceptedKeyTypes", "PAMServiceName", "mlkem"}},
		{version: v(10, 0),
			has:   []string{"PAMServiceName sshd", "\tPAMServiceName sshd", "mlkem768x25519-sha256"},
			lacks: []string{"ChallengeResponse"}},
	} {
		m := newMachine(t)
		m.openSSH, m.algs = test.version.String(), test.algorithms
		f, err := factsOf(m.Target)
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.plan(t.Context(), m.Target)
		if err != nil {
			t.Fatal(err)
		}
		got := string(p.files[0].data)
		golden := filepath.Join("testdata", "00-00-totp.conf-openssh-"+m.openSSH+".golden")
		if *update {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("differs from %s; look at it, then run go test -update:\n%s", golden, got)
		}
		for _, s := range test.has {
			if !strings.Contains(got, s) {
				t.Errorf("%s: lacks %q", m.openSSH, s)
			}
		}
		for _, s := range test.lacks {
			if strings.Contains(got, s) {
				t.Errorf("%s: has %q", m.openSSH, s)
			}
		}
	}
}

// What the unit says again is all that a login without a code would take.
func TestUnitOptions(t *testing.T) {
	f := &facts{openSSH: v(9, 2)}
	want := []string{"PubkeyAuthentication=yes", "KbdInteractiveAuthentication=yes", "AuthenticationMethods=publickey,keyboard-interactive", "PasswordAuthentication=no", "UsePAM=yes"}
	if got := f.unitOptions(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSupportedAlgorithms(t *testing.T) {
	m := newMachine(t)
	m.algs = map[string]string{"Ciphers": "3des-cbc\naes128-ctr\naes256-ctr\n"}
	got, err := supportedAlgorithms(t.Context(), m.Target, v(9, 2))
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got, func(s setting) bool { return s.keyword == "Ciphers" })
	if got[i].value != "aes256-ctr,aes128-ctr" {
		t.Errorf("Ciphers %s", got[i].value)
	}
	m.algs["Ciphers"] = "3des-cbc\n"
	if _, err := supportedAlgorithms(t.Context(), m.Target, v(9, 2)); err == nil {
		t.Error("an sshd without one good cipher was accepted")
	}
}
