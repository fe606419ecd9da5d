// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
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

// The drop-in of each version of OpenSSH that the table has rows for, and of
// each kind of policy.
func TestDropInGolden(t *testing.T) {
	for _, test := range []struct {
		name       string
		version    target.OpenSSH
		policy     policy.SSHD
		algorithms map[string]string // nil: all that are wanted
		has, lacks []string
	}{
		{name: "openssh-8.4", version: v(8, 4),
			has:   []string{"ChallengeResponseAuthentication yes", "PubkeyAcceptedKeyTypes "},
			lacks: []string{"PubkeyAcceptedAlgorithms", "RequiredRSASize", "PAMServiceName", "PerSource"}},
		{name: "openssh-9.2", version: v(9, 2), algorithms: algorithmsOf(t, "openssh-9.2-debian12.algorithms"),
			has:   []string{"RequiredRSASize 2048", "PerSourceMaxStartups 5", "PerSourceNetBlockSize 32:64", "PubkeyAcceptedAlgorithms ", "sntrup761x25519-sha512@openssh.com"},
			lacks: []string{"ChallengeResponse", "PubkeyAcceptedKeyTypes", "PAMServiceName", "mlkem", "Match Group", "Match User", "Match Address"}},
		{name: "openssh-10.0", version: v(10, 0),
			has:   []string{"PAMServiceName sshd", "\tPAMServiceName sshd", "mlkem768x25519-sha256"},
			lacks: []string{"ChallengeResponse"}},
		{name: "strict", version: v(10, 0), policy: policy.SSHD{Algorithms: policy.AlgorithmsStrict},
			has:   []string{"RequiredRSASize 3072"},
			lacks: []string{"ecdsa", "curve25519-sha256,", "diffie"}},
		{name: "distro", version: v(9, 2), policy: policy.SSHD{Algorithms: policy.AlgorithmsDistro, TCPForwarding: policy.ForwardingAllow, RootLogin: policy.RootDeny},
			has:   []string{"AllowTcpForwarding yes", "PermitRootLogin no", "\tPermitRootLogin no"},
			lacks: []string{"Ciphers", "HostKeyAlgorithms", "RequiredRSASize", "AllowTcpForwarding no"}},
		{name: "exempt", version: v(9, 2), policy: policy.SSHD{ExemptGroups: []string{"deploy", "backup-jobs"}, ExemptUsers: []string{"ansible"}, ExemptFrom: []string{"10.20.0.0/16", "fd00:1::/64"}},
			has: []string{"Match Group deploy,backup-jobs User *,!root\n\tAuthenticationMethods publickey\n", "Match User ansible\n", "Match Address 10.20.0.0/16,fd00:1::/64 User *,!root\n"}},
	} {
		m := newMachine(t)
		m.openSSH, m.algs = test.version.String(), test.algorithms
		f, err := factsOf(m.Target, &policy.Policy{SSHD: test.policy})
		if err != nil {
			t.Fatal(err)
		}
		p, err := f.plan(t.Context(), m.Target)
		if err != nil {
			t.Fatal(err)
		}
		got := string(p.files[0].data)
		golden := filepath.Join("testdata", "00-00-totp.conf-"+test.name+".golden")
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
				t.Errorf("%s: lacks %q", test.name, s)
			}
		}
		for _, s := range test.lacks {
			if strings.Contains(got, s) {
				t.Errorf("%s: has %q", test.name, s)
			}
		}
		// The block for everybody comes last, or it would exempt nobody.
		if i, j := strings.LastIndex(got, "Match "), strings.Index(got, "Match all\n"); i != j || j < 0 {
			t.Errorf("%s: Match all is not the last block:\n%s", test.name, got)
		}
	}
}

// What the unit says again is all that a login without a code would take.
func TestUnitOptions(t *testing.T) {
	f := &facts{openSSH: v(9, 2), policy: new(policy.Policy).WithDefaults()}
	want := []string{"PubkeyAuthentication=yes", "KbdInteractiveAuthentication=yes", "AuthenticationMethods=publickey,keyboard-interactive", "PasswordAuthentication=no", "UsePAM=yes"}
	if got := f.unitOptions(); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Every policy says each keyword once in every version.
func TestSettingsOnce(t *testing.T) {
	for _, version := range []target.OpenSSH{v(8, 4), v(8, 9), v(9, 2), v(9, 9), v(10, 0)} {
		for _, a := range []string{policy.AlgorithmsCompatible, policy.AlgorithmsStrict, policy.AlgorithmsDistro} {
			for _, root := range []string{policy.RootAuto, policy.RootTOTP, policy.RootDeny} {
				for _, forward := range []string{policy.ForwardingAllow, policy.ForwardingDeny} {
					seen := map[string]bool{}
					for _, list := range [][]setting{auth, session, algorithms} {
						for _, s := range known(list, version, policy.SSHD{Algorithms: a, RootLogin: root, TCPForwarding: forward}) {
							if seen[s.keyword] {
								t.Errorf("%s %s %s %s: %s twice", version, a, root, forward, s.keyword)
							}
							seen[s.keyword] = true
						}
					}
					for _, k := range []string{"PermitRootLogin", "AllowTcpForwarding", "AllowStreamLocalForwarding", "AuthenticationMethods"} {
						if !seen[k] {
							t.Errorf("%s %s %s %s: no %s", version, a, root, forward, k)
						}
					}
					if seen["KexAlgorithms"] == (a == policy.AlgorithmsDistro) {
						t.Errorf("%s %s: KexAlgorithms %v", version, a, seen["KexAlgorithms"])
					}
				}
			}
		}
	}
}

func TestSupportedAlgorithms(t *testing.T) {
	compatibly := policy.SSHD{Algorithms: policy.AlgorithmsCompatible}
	m := newMachine(t)
	m.algs = map[string]string{"Ciphers": "3des-cbc\naes128-ctr\naes256-ctr\n"}
	got, err := supportedAlgorithms(t.Context(), m.Target, v(9, 2), compatibly)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got, func(s setting) bool { return s.keyword == "Ciphers" })
	if got[i].value != "aes256-ctr,aes128-ctr" {
		t.Errorf("Ciphers %s", got[i].value)
	}
	m.algs["Ciphers"] = "3des-cbc\n"
	if _, err := supportedAlgorithms(t.Context(), m.Target, v(9, 2), compatibly); !errors.Is(err, ErrAlgorithms) {
		t.Error("an sshd without one good cipher was accepted")
	}
}
