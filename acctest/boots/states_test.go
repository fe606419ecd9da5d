// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/traces"
)

// state is one of a server on which the agent does not work, or sshd is started
// another way. Each is made in the boot before its own.
type state struct {
	name, script string
	keyless      bool // cloud-init has no part in this boot, and there are no host keys
}

// The parts of states, as scripts. The first two put back what another part took.
const (
	mended = `
[ ! -e /root/totp-agent ] || mv -f /root/totp-agent /usr/local/sbin/totp-agent
[ ! -e /root/totp-agent.service ] || mv -f /root/totp-agent.service /etc/systemd/system/totp-agent.service`
	failing = mended + `
mv /usr/local/sbin/totp-agent /root/totp-agent
cp /bin/false /usr/local/sbin/totp-agent`
	masked = mended + `
mv /etc/systemd/system/totp-agent.service /root/totp-agent.service
ln -s /dev/null /etc/systemd/system/totp-agent.service`
	bySocket = `
systemctl disable --quiet ssh.service
systemctl unmask --quiet ssh.socket
systemctl enable --quiet ssh.socket`
	byService = `
systemctl disable --quiet ssh.socket
systemctl enable --quiet ssh.service`
	withCloud = `
rm -f /etc/cloud/cloud-init.disabled`
	withoutKeys = `
touch /etc/cloud/cloud-init.disabled
rm /etc/ssh/ssh_host_*`
)

var states = []state{
	{"ssh.socket starts sshd, and the agent fails", bySocket + failing, false},
	{"ssh.service starts sshd, the agent is masked, cloud-init is off, and there are no host keys", byService + masked + withoutKeys, true},
	{"ssh.socket starts sshd, and the agent is masked", bySocket + masked + withCloud, false},
	{"ssh.service starts sshd, the agent fails, cloud-init is off, and there are no host keys", byService + failing + withoutKeys, true},
}

// A user who was enrolled needs key and code also while the agent does not work, a user
// who was not is denied, and root can log in on the console. An image of the server
// then has no trace of it.
func TestAgentDoesNotWork(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := newServer(t, r)
		// A minimal root of Debian 13 has no login, which getty runs.
		if _, err := s.Disk().Shell(t.Context(), "[ -x /bin/login ] || { apt-get -qq update; apt-get -qq install --no-install-recommends login; }"); err != nil {
			t.Fatal(err)
		}
		s.start()
		alice := s.cards()["alice"]
		s.cycles()
		dave := s.newcomer("dave")
		for _, st := range states {
			s.sh(st.script)
			s.powerOff()
			if err := s.Start(t.Context()); err != nil {
				t.Fatalf("%s: %v", st.name, err)
			}
			t.Logf("%s: logins with %s", st.name, alice.ID)
			if _, err := s.LogIn(t.Context(), s.img.people["root"].password, "test $(id -u) = 0"); err != nil {
				t.Errorf("%s: %v", st.name, err)
			}
			rows, err := login.Short(t.Context(), login.Go{}, s.shownKeys(), s.account("alice", alice), dave)
			s.passed(rows, err)
			s.cycles()
			if st.keyless {
				s.ownHostKeys()
			}
			if t.Failed() {
				t.Fatal(st.name)
			}
		}
		s.leavesNoTrace()
	})
}

// newcomer adds an account with a login key that the agent has not seen, as an
// administrator's adduser does.
func (s *server) newcomer(name string) login.Account {
	s.t.Helper()
	key, err := login.NewKey(s.dir, name)
	if err != nil {
		s.t.Fatal(err)
	}
	a := login.Account{User: name, Key: key, Password: "the password of " + name}
	s.sh("useradd --create-home --shell /bin/bash " + name + `
mkdir -m 700 /home/` + name + `/.ssh
echo '` + key.Public + `' >/home/` + name + `/.ssh/authorized_keys
chown -R ` + name + `: /home/` + name + `/.ssh
echo '` + name + ":" + a.Password + `' | chpasswd`)
	return a
}

// ownHostKeys wants those of a server without cloud-init to be made by the bake's unit.
func (s *server) ownHostKeys() {
	s.t.Helper()
	out := s.sh(`systemctl show --property=Result,ConditionResult,ExecMainStatus totp-hostkeys.service
ls /etc/ssh/ssh_host_ed25519_key /etc/ssh/ssh_host_rsa_key
systemctl is-active ssh.service
journalctl --boot --no-pager --unit=cloud-init-local.service --unit=cloud-init.service --unit=cloud-init-main.service --output=cat --grep=Cloud-init || true`)
	for _, want := range []string{"Result=success\n", "ConditionResult=yes\n", "ExecMainStatus=0\n", "rsa_key\nactive\n"} {
		if !strings.Contains(out, want) {
			s.t.Errorf("%q is not in %q", want, out)
		}
	}
	if strings.Contains(out, "Cloud-init") {
		s.t.Errorf("cloud-init has run: %q", out)
	}
}

// leavesNoTrace has root make an image of a server that was in use: at the next
// shutdown the last of it goes.
func (s *server) leavesNoTrace() {
	s.t.Helper()
	// The seed is on this disk in the lab only: a provider has it elsewhere.
	if err := s.Remove(); err != nil {
		s.t.Fatal(err)
	}
	s.sh(mended + "\ntotp-agent clean")
	s.powerOff()
	if err := traces.Find(s.Disk().Dir()); err != nil {
		s.t.Error(err)
	}
	agent, err := lab.agent()
	if err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.CommandContext(s.t.Context(), agent, "clean", "--check", "--root", s.Disk().Dir()).CombinedOutput(); err != nil {
		s.t.Errorf("clean --check: %v\n%s", err, out)
	}
}
