// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/systemd"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// What somebody may do to an image after bake: check says where, and that it is
// critical if the login no longer holds.
func TestCheckReportsABadImage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script string
		id, path     string // one of the findings
		severity     string
	}{
		{"nullok", `sed -i '/pam_google/s/$/ nullok/' /etc/pam.d/sshd`, "pam-nullok", "/etc/pam.d/sshd", "critical"},
		{"PAM line gone", `sed -i /pam_google/d /etc/pam.d/sshd`, "pam-block", "/etc/pam.d/sshd", "critical"},
		{"PAM line optional", `sed -i '/pam_google/s/requisite/optional/' /etc/pam.d/sshd`, "pam-block", "/etc/pam.d/sshd", "critical"},
		{"pam_permit", `echo 'auth sufficient pam_permit.so' >>/etc/pam.d/sshd`, "pam-permit", "/etc/pam.d/sshd", "critical"},
		{"password asked as well", `sed -i '/pam_google/a @include common-auth' /etc/pam.d/sshd`, "pam-", "/etc/pam.d/", "critical"},
		{"module removed", `dpkg --force-depends --remove libpam-google-authenticator`, "pam-module", "pam_google_authenticator.so", "critical"},
		{"drop-in gone", `rm /etc/ssh/sshd_config.d/00-00-totp.conf`, "", "00-00-totp.conf", "critical"},
		{"drop-in open to all", `chmod 0666 /etc/ssh/sshd_config.d/00-00-totp.conf`, "file-mode", "00-00-totp.conf", ""},
		{"one sorts before", `sed -i '/^Include.*00-00-totp/d' /etc/ssh/sshd_config; echo 'AuthenticationMethods publickey' >/etc/ssh/sshd_config.d/00-00-a.conf`, "sshd-dropin-before", "/etc/ssh/", "degraded"},
		{"Match ahead of the Include", `sed -i '1i Match User alice\n  AuthenticationMethods publickey' /etc/ssh/sshd_config`, "sshd-match-before", "/etc/ssh/sshd_config", "degraded"},
		{"no Include", `sed -i '/^Include/d' /etc/ssh/sshd_config`, "sshd-no-include", "/etc/ssh/sshd_config", "degraded"},
		{"UsePAM no ahead", `sed -i '1i UsePAM no' /etc/ssh/sshd_config`, "sshd-keyword-before", "/etc/ssh/sshd_config", "degraded"},
		{"main file gone", `rm /etc/ssh/sshd_totp.conf`, "sshd-test", "/etc/ssh/sshd_config", "critical"},
		{"settings of the login gone, and a Match", `rm /etc/ssh/sshd_totp_login.conf; sed -i '1i Match User alice\n  AuthenticationMethods publickey' /etc/ssh/sshd_config`, "sshd-test", "/etc/ssh/sshd_config", "critical"},
		{"main file without ours, and a Match", `sed -i '/_login/d' /etc/ssh/sshd_totp.conf; sed -i '1i Match User alice\n  AuthenticationMethods publickey' /etc/ssh/sshd_config`, "sshd-test", "/etc/ssh/sshd_config", "critical"},
		{"started by a drop-in of the alias", `mkdir -p /etc/systemd/system/sshd.service.d; printf '[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o AuthenticationMethods=publickey\n' >/etc/systemd/system/sshd.service.d/x.conf; printf 'AuthenticationMethods publickey\n' >/etc/ssh/sshd_config`, "sshd-effective", "/etc/ssh/sshd_config", "critical"},
		{"other settings of the login", `echo 'PasswordAuthentication yes' >/etc/ssh/sshd_totp_login.conf`, "file-altered", "/etc/ssh/sshd_totp_login.conf", "critical"},
		{"a named pipe for sshd_config", `rm /etc/ssh/sshd_config; mkfifo /etc/ssh/sshd_config`, "sshd-config", "/etc/ssh/sshd_config", "critical"},
		{"a link to nowhere for sshd_config", `ln -sf /nowhere /etc/ssh/sshd_config`, "sshd-test", "/etc/ssh/sshd_config", "critical"},
		{"SSHD_OPTS with Match", `echo 'SSHD_OPTS="-o Match=all"' >/etc/default/ssh`, "sshd-test", "/etc/ssh/sshd_config", "critical"},
		{"agent gone", `rm /usr/local/sbin/totp-agent`, "file-missing", "/usr/local/sbin/totp-agent", "degraded"},
		{"unit masked", `ln -sf /dev/null /etc/systemd/system/totp-agent.service`, "", "totp-agent.service", ""},
		{"state directory open", `chmod 0777 /var/lib/google-authenticator`, "file-mode", "/var/lib/google-authenticator", ""},
		{"policy broken", `echo 'version: [' >/etc/totp-agent/image.yaml`, "policy", "/etc/totp-agent/image.yaml", "degraded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.must("sh", "-euc", tt.script)
			// The agent that bake was run with, since one case removes the other.
			s := run(t, m.Command(t.Context(), newAgent, "check", "--json"))
			var findings []struct{ ID, Path, What, Fix, Severity string }
			if err := json.Unmarshal([]byte(s.out), &findings); err != nil {
				t.Fatalf("%v\n%s%s", err, s.out, s.err)
			}
			code := 1
			if len(findings) > 0 && findings[0].Severity == "critical" { // the worst comes first
				code = 3
			}
			if s.code != code || len(findings) > 4 {
				t.Errorf("exit %d, want %d; %d findings\n%s%s", s.code, code, len(findings), s.out, s.err)
			}
			found := false
			for _, f := range findings {
				if f.What == "" || f.Fix == "" {
					t.Errorf("a finding without words or remedy: %+v", f)
				}
				found = found || strings.HasPrefix(f.ID, tt.id) && strings.Contains(f.Path, tt.path) &&
					(tt.severity == "" || f.Severity == tt.severity)
			}
			if !found {
				t.Errorf("no finding %q of %s, %s, among %+v", tt.id, tt.path, tt.severity, findings)
			}
		})
	}
}

// Files of somebody else that would take the second factor away, were it not
// for the drop-in's place and its closing Match block.
func TestForeignDropInsDoNotOpenTheDoor(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cards := m.firstBoot()
	err := os.WriteFile(m.Path("/etc/ssh/sshd_config.d/50-cloud-init.conf"), []byte(`
PasswordAuthentication yes
KbdInteractiveAuthentication no
UsePAM no
Match User *
	AuthenticationMethods publickey
	PasswordAuthentication yes
Match all
	KbdInteractiveAuthentication no
	PermitRootLogin yes
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	m.table(cards)
}

// A main file from somebody's template, without the Include: the unit's drop-in
// gives sshd the essential keywords on its command line.
func TestATemplatedMainFileDoesNotOpenTheDoor(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cards := m.firstBoot()
	err := os.WriteFile(m.Path("/etc/ssh/sshd_config"), []byte("PasswordAuthentication yes\nUsePAM yes\nSubsystem sftp internal-sftp\n"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	args := m.unitOptions()
	if len(args) == 0 {
		t.Fatal("the unit gives sshd no options")
	}
	sshd, err := m.StartSSHD(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := m.HostKeys()
	if err != nil {
		t.Fatal(err)
	}
	server := login.Server{Host: sshd.Host, Port: sshd.Port, HostKeys: keys}
	alice := m.account("alice", cards)
	ssh := login.OpenSSH{Dir: m.dir}
	if r, err := login.Enter(t.Context(), ssh, server, alice); err != nil || r.Outcome != login.In || len(r.Prompts) != 1 {
		t.Errorf("key and code: %v, %v, prompts %q", r, err, r.Prompts)
	}
	r := ssh.Login(t.Context(), server, login.Try{User: "alice", Key: alice.Key, Methods: []string{login.PublicKey}})
	if r.Outcome != login.Unasked || !r.KeyTaken() {
		t.Errorf("key alone: %v", r)
	}
	r = ssh.Login(t.Context(), server, login.Try{User: "alice", Methods: []string{login.Password}, Answers: []string{alice.Password}})
	if r.Outcome != login.Unasked || !slices.Equal(r.Remaining, []string{login.PublicKey}) {
		t.Errorf("password: %v", r)
	}
}

// unitOptions are sshd's arguments as its unit has them, as systemd reads it and
// the files that it names, without those that make sshd stay.
func (m *machine) unitOptions() []string {
	m.t.Helper()
	if len(m.exist("/lib/systemd/system/ssh.service")) == 0 {
		return m.optionsOf("sshd.service") // the RHEL family
	}
	return m.optionsOf("ssh.service")
}

// optionsOf is the same for another unit.
func (m *machine) optionsOf(unit string) []string {
	m.t.Helper()
	root, err := target.Open(m.Dir())
	if err != nil {
		m.t.Fatal(err)
	}
	defer root.Close()
	u, err := systemd.Load(root, unit)
	if err != nil {
		m.t.Fatal(err)
	}
	env, err := u.Environment(root)
	if err != nil {
		m.t.Fatal(err)
	}
	starts := u.List("Service", "ExecStart")
	if len(starts) != 1 {
		m.t.Fatalf("%s: %d commands", unit, len(starts))
	}
	args := systemd.Expand(systemd.Split(starts[0].Value), env)[1:]
	return slices.DeleteFunc(args, func(a string) bool { return a == "-D" || a == "-i" })
}
