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
	args := append(m.batchOptions(s, user), append([]string{"-b", from}, more...)...)
	out, err := exec.CommandContext(m.t.Context(), "ssh", append(args, user+"@"+s.Host, "id", "-un")...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// batchOptions are such a client's options, in words that ssh, scp and sftp share.
func (m *machine) batchOptions(s login.Server, user string) []string {
	m.t.Helper()
	known := filepath.Join(m.dir, "known_hosts")
	var lines strings.Builder
	for _, k := range s.HostKeys {
		fmt.Fprintf(&lines, "[%s]:%d %s\n", s.Host, s.Port, k)
	}
	if err := os.WriteFile(known, []byte(lines.String()), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return []string{"-F", "none", "-o", fmt.Sprintf("Port=%d", s.Port), "-o", "IdentityFile=" + m.keyOf(user).File,
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known}
}

// keyOf is the key that a user's home directory has: root's other names have
// root's.
func (m *machine) keyOf(user string) *login.Key {
	if p, ok := m.img.people[user]; ok {
		return p.key
	}
	return m.img.people["root"].key
}

// What automation runs besides ssh, with the key alone. Each leaves a file with
// this text in the user's home directory, or the server's refusal in out.
const automated = "left by automation"

var automation = []struct {
	name string
	run  func(m *machine, s login.Server, user, file string) (out string, err error)
}{
	{"scp", func(m *machine, s login.Server, user, file string) (string, error) {
		return m.combined("", "scp", append(m.batchOptions(s, user), file, user+"@"+s.Host+":scp")...)
	}},
	{"scp-O", func(m *machine, s login.Server, user, file string) (string, error) { // by its own protocol
		return m.combined("", "scp", append(m.batchOptions(s, user), "-O", file, user+"@"+s.Host+":scp-O")...)
	}},
	{"sftp", func(m *machine, s login.Server, user, file string) (string, error) {
		return m.combined("put "+file+" sftp\n", "sftp", append(m.batchOptions(s, user), "-b", "-", user+"@"+s.Host)...)
	}},
	{"rsync", func(m *machine, s login.Server, user, file string) (string, error) {
		return m.combined("", "rsync", "--rsh=ssh "+strings.Join(m.batchOptions(s, user), " "), file, user+"@"+s.Host+":rsync")
	}},
	{"Ansible", runLikeAnsible},
}

// runLikeAnsible connects as Ansible's ssh plugin does with pipelining: one
// connection that stays, kbdint forbidden, Python's standard input for a module.
func runLikeAnsible(m *machine, s login.Server, user, _ string) (string, error) {
	dir, err := os.MkdirTemp("", "cp-") // the name of a socket is short
	if err != nil {
		m.t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	args := append(m.batchOptions(s, user), "-C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60s", "-o", "ControlPath="+dir+"/s",
		"-o", "KbdInteractiveAuthentication=no", "-o", "PasswordAuthentication=no",
		"-o", "PreferredAuthentications=gssapi-with-mic,gssapi-keyex,hostbased,publickey", "-o", "ConnectTimeout=10")
	// What stays in the background keeps no pipe of ours: its errors go to a file.
	args = append(args, "-E", filepath.Join(dir, "log"))
	where := user + "@" + s.Host
	if out, err := m.combined("", "ssh", append(args, where, "/bin/sh -c 'echo ~ && sleep 0'")...); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		return out + string(log), err
	}
	defer func() { _, _ = m.combined("", "ssh", append(args, "-O", "exit", where)...) }()
	if out, err := m.combined("", "ssh", append(args, "-O", "check", where)...); err != nil {
		return out, err
	}
	module := "import os\nopen(os.path.expanduser('~/Ansible'), 'w').write('" + automated + "')\n"
	return m.combined(module, "ssh", append(args, where, "/bin/sh -c '/usr/bin/python3 && sleep 0'")...)
}

// combined runs a program of this machine.
func (m *machine) combined(stdin, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(m.t.Context(), name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Automation logs in with its key alone where the policy says so, by group or by
// name; no other user does, and root never, under any name. Logins from exempt
// networks are rows of TestSelfTestOfExemptions.
func TestExemptions(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newGuestOf(t, r)
			m.must("sh", "-euc", `groupadd deploy; usermod -aG deploy carol; usermod -aG deploy root
useradd -o -u 0 -g deploy -d /root -M -s /bin/bash toor
apt-get -q -y --no-download --no-install-recommends install python3-minimal
apt-get -q -y --no-install-recommends install rsync`)
			if _, err := bakeRoot(t.Context(), m.Root, m.img.policy+"sshd: {exempt_groups: [deploy], exempt_users: [bob], exempt_from: [10.20.0.0/16]}\n"); err != nil {
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
				{"toor", "127.0.0.1", false}, // root by another name, in an exempt group
			} {
				out, err := m.batch(server, tt.user, tt.from)
				if in := err == nil; in != tt.in || in && out != tt.user {
					t.Errorf("%s from %s: %q, %v; want in: %v", tt.user, tt.from, out, err, tt.in)
				}
			}
			file := filepath.Join(m.dir, "file")
			if err := os.WriteFile(file, []byte(automated), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, tool := range automation {
				for _, user := range []string{"carol", "alice"} {
					out, err := tool.run(m, server, user, file)
					left, _ := os.ReadFile(m.Path("/home/" + user + "/" + tool.name))
					if exempt := user == "carol"; (err == nil) != exempt || (string(left) == automated) != exempt ||
						!exempt && !strings.Contains(out, "Permission denied (keyboard-interactive)") {
						t.Errorf("%s by %s: %v, %q; left %q", user, tool.name, err, out, left)
					}
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
