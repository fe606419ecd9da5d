// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/access"
)

// extraUsers makes a second source of accounts, as LDAP and sssd are one: a name
// service module of Debian that reads files of its own.
const extraUsers = `apt-get -q -y --no-install-recommends install libnss-extrausers
sed -i -E 's/^(passwd|group|shadow):.*/& extrausers/' /etc/nsswitch.conf
echo 'erin:x:20001:20001:Erin:/srv/erin:/bin/bash' >/var/lib/extrausers/passwd
echo 'frank:x:20002:20001:Frank:/srv/frank:/bin/bash' >>/var/lib/extrausers/passwd
echo 'team:x:20001:' >/var/lib/extrausers/group
echo 'erin:!:19000:0:99999:7:::' >/var/lib/extrausers/shadow
echo 'frank:!:19000:0:99999:7::19500:' >>/var/lib/extrausers/shadow
chmod 0644 /var/lib/extrausers/*
for u in erin frank; do install -d -m 0700 -o $u /srv/$u /srv/$u/.ssh; done`

// TestDirectoryUsersLogIn: users whom /etc/passwd does not have are enrolled, and
// PAM and sshd take them.
func TestDirectoryUsersLogIn(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.CloudDebians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newCloudMachineOf(t, r)
			m.must("sh", "-euc", extraUsers)
			keys := accessKeys(t, m.dir)
			owner, err := newPerson(m.dir, "owner", true)
			if err != nil {
				t.Fatal(err)
			}
			var users strings.Builder
			for _, name := range []string{"erin", "frank"} {
				file := m.Path("/srv/" + name + "/.ssh/authorized_keys")
				if err := os.WriteFile(file, []byte(keys["ed25519"].Public+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&users, "  - {name: %s, recipients: [%s]}\n", name, owner.recipient)
			}
			fmt.Fprintf(&users, "  - {name: alice, recipients: [%s]}\n", owner.recipient)
			m.must("chown", "erin", "/srv/erin/.ssh/authorized_keys")
			m.must("chown", "frank", "/srv/frank/.ssh/authorized_keys")
			if err := os.WriteFile(m.Path("/etc/ssh/sshd_config.d/50-team.conf"), []byte("AllowGroups team\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			m.instancePolicy("version: 1\nusers:\n" + users.String())
			m.ok("enroll")
			checks := m.loginChecks()
			server := m.server()
			for _, tt := range []struct {
				name   string
				reason access.Reason
			}{{"erin", ""}, {"frank", access.AccountExpired}} {
				check := checks[tt.name]
				if tt.reason == "" && check.Verdict != "can" || tt.reason != "" && !check.has(tt.reason) {
					t.Errorf("%s: %+v, want %v", tt.name, check, tt.reason)
				}
				got, err := m.realLogin(server, accessCase{name: tt.name}, keys)
				if err != nil || (got.Outcome == login.In) != (tt.reason == "") {
					t.Errorf("%s: %v %s, %v", tt.name, got, got.Detail, err)
				}
			}
			// alice is of /etc/passwd, and of no group that is allowed.
			if check := checks["alice"]; !check.has(access.AllowGroups) {
				t.Errorf("alice: %+v", check)
			}
			// The directory does not know them for a while.
			m.must("sh", "-euc", "mv /var/lib/extrausers/passwd /tmp/passwd")
			m.ok("enroll")
			m.must("sh", "-euc", "mv /tmp/passwd /var/lib/extrausers/passwd")
			m.ok("enroll")
			if got, err := m.realLogin(server, accessCase{name: "erin"}, keys); err != nil || got.Outcome == login.Failed {
				t.Errorf("erin, later: %v %s, %v", got, got.Detail, err)
			}
			if names := m.list(pamStates); len(names) != 3 {
				t.Errorf("enrolled: %v", names)
			}
		})
	}
}

// server starts sshd with the host keys of the machine.
func (m *machine) server() login.Server {
	m.t.Helper()
	s, err := m.StartSSHD(m.t.Context(), m.patient()...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("sshd:\n%s", s.Log())
		}
	})
	hostKeys, err := m.HostKeys()
	if err != nil {
		m.t.Fatal(err)
	}
	return login.Server{Host: s.Host, Port: s.Port, HostKeys: hostKeys}
}

// TestAccountMadeAgain: userdel and useradd of the same name between two runs. The
// new account has the same uid, and does not get in with the old secret.
func TestAccountMadeAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change string
		kept   bool
	}{
		"userdel -r, useradd":       {"userdel -r alice; useradd -m -u $uid -s /bin/bash alice", false},
		"userdel, useradd -u":       {"userdel -r alice; useradd -m -u 4321 -s /bin/bash alice", false},
		"userdel, new uid, no home": {"userdel alice; useradd -M -u 4321 -s /bin/bash alice", false},
		"usermod -s -G":             {"usermod -s /bin/sh -aG audio alice", true},
		"usermod -m -d":             {"usermod -m -d /home/alice2 alice", true},
		"passwd, chage, chmod":      {"echo alice:other | chpasswd; chage -E 2099-01-01 alice; chmod 0750 /home/alice", true},
		"usermod -u":                {"usermod -u 4321 alice", false}, // a uid is the account
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.firstBoot()
			before := m.secret("alice")
			m.must("sh", "-euc", "uid=$(id -u alice); "+tt.change)
			m.ok("enroll")
			if kept := m.secret("alice") == before; kept != tt.kept {
				t.Errorf("secret kept: %v, want %v\n%s", kept, tt.kept, m.must("cat", "/etc/passwd"))
			}
			if len(m.list(filepath.Dir(envelopes)+"/outbox/ready")) == 0 && !tt.kept {
				t.Error("the new secret has no envelope")
			}
		})
	}
}

// secret returns a user's secret from the PAM state file.
func (m *machine) secret(user string) string {
	m.t.Helper()
	b, err := os.ReadFile(m.Path(pamStates + "/" + user))
	if err != nil {
		m.t.Fatal(err)
	}
	secret, _, _ := strings.Cut(string(b), "\n")
	return secret
}

// TestNoOneCanLogIn: root alone is enrolled, and its only key is cloud-init's that
// sends people elsewhere. Console and banner say so until that has changed.
func TestNoOneCanLogIn(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	owner, err := newPerson(m.dir, "owner", true)
	if err != nil {
		t.Fatal(err)
	}
	keys := accessKeys(t, m.dir)
	const notice = "/run/totp-agent/notice"
	if err := os.WriteFile(m.Path("/etc/totp-agent/image.yaml"), []byte("version: 1\nissuer: I\nenroll: listed\nchannels: [{type: file}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.instancePolicy(fmt.Sprintf("version: 1\nusers:\n  - {name: root, recipients: [%s]}\n", owner.recipient))
	write := func(options string) {
		if err := os.WriteFile(m.Path("/root/.ssh/authorized_keys"), []byte(options+keys["ed25519"].Public+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command="echo 'Please login as the user \"debian\" rather than the user \"root\".';echo;sleep 10;exit 142" `)
	said := m.ok("enroll")
	if !strings.Contains(said.err, "root: cannot log in: ") {
		t.Errorf("log: %s", said.err)
	}
	if check := m.loginChecks()["root"]; check.Verdict != "cannot" || !check.has(access.KeyForced) {
		t.Errorf("%+v", check)
	}
	if text := m.agent("status").out; !strings.Contains(text, "root: cannot log in: /root/.ssh/authorized_keys: ") || !strings.Contains(text, "\nnotice: ") {
		t.Errorf("status:\n%s", text)
	}
	if len(m.exist(notice)) == 0 {
		t.Error("no notice")
	}
	server := m.server()
	got, err := m.realLogin(server, accessCase{name: "root"}, keys)
	if err != nil || got.Outcome == login.In {
		t.Errorf("%v, %v", got, err)
	}
	write("")
	if text := m.ok("status").out; strings.Contains(text, "cannot log in") || strings.Contains(text, "\nnotice: ") {
		t.Errorf("status:\n%s", text)
	}
	m.ok("enroll")
	if len(m.exist(notice)) > 0 {
		t.Error("the notice is still there")
	}
	if got, err = m.realLogin(server, accessCase{name: "root"}, keys); err != nil || got.Outcome != login.In {
		t.Errorf("%v %s, %v", got, got.Detail, err)
	}
}
