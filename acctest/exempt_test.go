// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// batch logs in as automation does, with OpenSSH's client that may ask nothing,
// from an address of this machine.
func (m *machine) batch(s login.Server, user, from string, more ...string) (string, error) {
	m.t.Helper()
	known := filepath.Join(m.dir, "known_hosts")
	var lines strings.Builder
	for _, k := range s.HostKeys {
		fmt.Fprintf(&lines, "[%s]:%d %s\n", s.Host, s.Port, k)
	}
	if err := os.WriteFile(known, []byte(lines.String()), 0o600); err != nil {
		m.t.Fatal(err)
	}
	args := append([]string{"-F", "none", "-b", from, "-p", fmt.Sprint(s.Port), "-i", m.img.people[user].key.File,
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known}, more...)
	out, err := exec.CommandContext(m.t.Context(), "ssh", append(args, user+"@"+s.Host, "id", "-un")...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// Automation logs in with its key alone where the policy says so, by group, by
// name or from a network; nobody else does, and root never.
func TestExemptions(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newGuestOf(t, r)
			m.must("sh", "-euc", "groupadd deploy; usermod -aG deploy carol; usermod -aG deploy root")
			if _, err := bakeRoot(t.Context(), m.Root, m.img.policy+"sshd: {exempt_groups: [deploy], exempt_users: [bob], exempt_from: [127.0.0.8/30]}\n"); err != nil {
				t.Fatal(err)
			}
			cards := m.firstBoot()
			server := m.serve(cards["alice"])
			for _, tt := range []struct {
				user, from string
				in         bool
			}{
				{"carol", "127.0.0.1", true},
				{"bob", "127.0.0.1", true},
				{"alice", "127.0.0.1", false},
				{"root", "127.0.0.1", false},
				{"alice", "127.0.0.9", true},
				{"alice", "127.0.0.12", false},
				{"root", "127.0.0.9", false},
			} {
				out, err := m.batch(server, tt.user, tt.from)
				if in := err == nil && out == tt.user; in != tt.in {
					t.Errorf("%s from %s: %q, %v; want in: %v", tt.user, tt.from, out, err, tt.in)
				}
			}
			// Without its key an exempt account is as closed as every other.
			client := login.Go{}
			for _, user := range []string{"carol", "bob"} {
				for _, method := range []string{login.Password, login.KeyboardInteractive} {
					got := client.Login(t.Context(), server, login.Try{User: user, Methods: []string{method}, Answers: []string{m.img.people[user].password}})
					if got.Outcome == login.In || got.Outcome == login.Failed {
						t.Errorf("%s by %s: %v", user, method, got)
					}
				}
			}
			if got, err := login.Enter(t.Context(), client, server, m.account("alice", cards)); err != nil || got.Outcome != login.In {
				t.Errorf("alice with key and code: %v, %v", got, err)
			}
			if got := m.ok("check").out; !strings.Contains(got, `"carol"`) || !strings.Contains(got, `"bob"`) || strings.Contains(got, "alice") {
				t.Errorf("check: %s", got)
			}
		})
	}
}

// root_login and tcp_forwarding, by real clients.
func TestRootLoginAndForwarding(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		root, forwarding string
		in, forwards     bool
	}{
		{"auto", "deny", true, false}, {"totp", "allow", true, true}, {"deny", "deny", false, false},
	} {
		t.Run(tt.root+" "+tt.forwarding, func(t *testing.T) {
			t.Parallel()
			m := newGuest(t)
			owner, err := newPerson(m.dir, "owner", true)
			if err != nil {
				t.Fatal(err)
			}
			policy := m.img.policy + fmt.Sprintf("  - {name: root, recipients: [%s]}\nsshd: {root_login: %s, tcp_forwarding: %s, exempt_users: [bob]}\n", owner.recipient, tt.root, tt.forwarding)
			if _, err := bakeRoot(t.Context(), m.Root, policy); err != nil {
				t.Fatal(err)
			}
			m.ok("enroll")
			m.ok("deliver")
			alice := m.openAs(m.img.people["alice"], "alice", m.envelope("alice"))
			server := m.serve(alice)
			if out, err := m.batch(server, "root", "127.0.0.1"); err == nil {
				t.Errorf("root with the key alone: %s", out)
			}
			if tt.in {
				c := m.openAs(owner, "root", m.envelope("root"))
				root := m.account("root", nil)
				root.Codes = login.NewCodes(c.Secret, c.BackupCodes)
				if got, err := login.Enter(t.Context(), login.Go{}, server, root); err != nil || got.Outcome != login.In {
					t.Errorf("root with key and code: %v, %v", got, err)
				}
			} else {
				if names := m.list(pamStates); len(names) != 2 {
					t.Errorf("state files of %v", names)
				}
				got := login.Go{}.Login(t.Context(), server, login.Try{User: "root", Key: m.img.people["root"].key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{"123456"}})
				if got.Outcome == login.In || got.Outcome == login.Failed {
					t.Errorf("root: %v", got)
				}
			}
			// -W opens one forwarded connection: sshd's own greeting comes back, or not.
			out, _ := m.batch(server, "bob", "127.0.0.1", "-W", fmt.Sprintf("127.0.0.1:%d", server.Port))
			if got := strings.Contains(out, "SSH-2.0-"); got != tt.forwards {
				t.Errorf("forwarding: %q, want %v", out, tt.forwards)
			}
		})
	}
}
