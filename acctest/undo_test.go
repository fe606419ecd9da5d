// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// What others do to a baked server, and the packages it may come from. None of it
// is meant to open the server, and none does: a key alone is refused afterwards,
// and so is a password, or sshd does not start. sshd is started as the unit does.
func TestNobodyUndoesItByAccident(t *testing.T) {
	t.Parallel()
	const (
		lastly = `cat >/etc/ssh/sshd_config.d/99-late.conf <<END
%s
END`
		open  = "AuthenticationMethods publickey\n\tPasswordAuthentication yes\n\tKbdInteractiveAuthentication no\n"
		apt   = "apt-get -q -y --no-download -o Dpkg::Options::="
		cloud = `apt-get -q -y --no-download --no-install-recommends install cloud-init
mkdir -p /var/lib/cloud/seed/nocloud /etc/cloud/cloud.cfg.d
echo 'instance-id: i-1' >/var/lib/cloud/seed/nocloud/meta-data
printf '#cloud-config\nssh_pwauth: true\nchpasswd: {expire: false}\n' >/var/lib/cloud/seed/nocloud/user-data
echo 'datasource_list: [NoCloud]' >/etc/cloud/cloud.cfg.d/99-lab.cfg
cloud-init init --local >/dev/null 2>&1 || true
cloud-init init >/dev/null 2>&1 || true
cloud-init single --name set_passwords --frequency always
grep -rqi '^PasswordAuthentication yes' /etc/ssh`
	)
	late := func(text string) string { return strings.Replace(lastly, "%s", text, 1) }
	cases := []undoCase{
		{"globals of a later drop-in", late("UsePAM no\nAuthenticationMethods publickey\nPasswordAuthentication yes\nPermitRootLogin yes\nKbdInteractiveAuthentication no"), false, "", ""},
		{"Match User of a later drop-in", late("Match User *\n\t" + open), false, "", ""},
		{"Match Address of a later drop-in", late("Match Address 0.0.0.0/0,::/0\n\t" + open), false, "", ""},
		{"Match all of a later drop-in", late("Match all\n\t" + open), false, "", ""},
		{"AuthenticationMethods any", late("AuthenticationMethods any"), true, "bookworm", ""}, // sshd 9.2 takes it for a mistake
		{"AuthenticationMethods any", late("AuthenticationMethods any"), false, "bullseye trixie", ""},
		{"AuthenticationMethods any for all users", late("Match User *\n\tAuthenticationMethods any"), true, "bookworm", ""}, // sshd 9.2 takes it for a mistake
		{"AuthenticationMethods any for all users", late("Match User *\n\tAuthenticationMethods any"), false, "bullseye trixie", ""},
		{"root with its key", late("PermitRootLogin yes\nMatch User root\n\tAuthenticationMethods publickey"), false, "", ""},
		{"UsePAM no in sshd_config", `sed -i 's/^UsePAM.*/UsePAM no/' /etc/ssh/sshd_config`, false, "", ""},
		{"passwords in sshd_config", `printf 'PasswordAuthentication yes\nMatch User *\n\t` + open + `' >>/etc/ssh/sshd_config`, false, "", ""},
		{"a drop-in that sorts before", `printf 'UsePAM no\nAuthenticationMethods publickey\n' >/etc/ssh/sshd_config.d/00-00-a.conf`, false, "", ""},
		{"a Match block that sorts before", `printf 'Match User *\n\t` + open + `' >/etc/ssh/sshd_config.d/0-early.conf`, false, "", ""},
		{"sshd_config without Include", `sed -i '/^Include/d' /etc/ssh/sshd_config; echo 'PasswordAuthentication yes' >>/etc/ssh/sshd_config`, false, "", ""},
		{"sshd_config from a template", `printf 'Port 22\nUsePAM yes\nPasswordAuthentication yes\nPermitRootLogin yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n' >/etc/ssh/sshd_config`, false, "", ""},
		{"sshd_config from a template, with ssh.socket", `printf 'Port 22\nUsePAM yes\nPasswordAuthentication yes\nPermitRootLogin yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n' >/etc/ssh/sshd_config`, false, "bullseye", "ssh@.service"},
		{"sshd_config from a template, with a socket of systemd-ssh-generator", `printf 'Port 22\nUsePAM yes\nPasswordAuthentication yes\nPermitRootLogin yes\nSubsystem sftp /usr/lib/openssh/sftp-server\n' >/etc/ssh/sshd_config`, false, "trixie", "sshd@.service"},
		{"the drop-in removed", `rm /etc/ssh/sshd_config.d/00-00-totp.conf`, false, "", ""},
		{"another PAM service", late("Match User *\n\tPAMServiceName other"), false, "trixie", ""},
		{"another PAM service", late("Match User *\n\tPAMServiceName other"), true, "bullseye bookworm", ""},
		{"cloud-init's ssh_pwauth", cloud, false, "", ""},
		{"packages reinstalled", apt + `--force-confold --reinstall install openssh-server libpam-google-authenticator libpam-runtime`, false, "", ""},
		{"pam-auth-update", `pam-auth-update --force`, false, "", ""},
		{"reinstalled with --force-confnew", `export UCF_FORCE_CONFFNEW=1; ` + apt + `--force-confask -o Dpkg::Options::=--force-confnew --reinstall install openssh-server libpam-google-authenticator libpam-runtime`, false, "", ""},
		{"reinstalled after its files were removed", `rm /etc/pam.d/sshd; export UCF_FORCE_CONFFMISS=1; ` + apt + `--force-confask -o Dpkg::Options::=--force-confnew -o Dpkg::Options::=--force-confmiss --reinstall install openssh-server`, false, "", ""},
		{"agent and units gone", `rm -rf /usr/local/sbin/totp-agent /etc/systemd/system/totp-* /etc/totp-agent`, false, "", ""},

		{"module gone", `dpkg --force-depends --remove libpam-google-authenticator`, true, "", ""},
	}
	tryToUndo(t, cases)
}

// An undoCase is something that is done to a baked server.
type undoCase struct {
	name, script string
	closed       bool   // key and code are refused afterwards, too
	only         string // the releases that it is for; empty: all
	unit         string // one sshd a connection, by this unit
}

// tryToUndo does each of these things on each release, starts sshd as its unit
// does, and logs in.
func tryToUndo(t *testing.T, cases []undoCase) {
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newMachineOf(t, r)
			cards := m.firstBoot()
			for _, tt := range cases {
				if tt.only != "" && !slices.Contains(strings.Fields(tt.only), r.Suite) {
					continue
				}
				t.Run(tt.name, func(t *testing.T) { cloneOf(t, m.img, m.Root).tryToUndo(tt, cards) })
			}
		})
	}
}

func (m *machine) tryToUndo(tt undoCase, cards map[string]card.Card) {
	t := m.t
	m.must("sh", "-euc", tt.script)
	start, options := m.StartSSHD, m.unitOptions()
	if tt.unit != "" {
		start, options = m.StartSSHDPerConnection, m.optionsOf(tt.unit)
	}
	server, up := m.serveAsTheUnit(start, options)
	if !up {
		if !tt.closed {
			t.Error("sshd does not start")
		}
		return
	}
	client := login.Go{}
	for _, name := range []string{"alice", "carol", "root"} {
		p := m.img.people[name]
		for method, try := range map[string]login.Try{
			"key alone":          {User: name, Key: p.key, Methods: []string{login.PublicKey}},
			"password":           {User: name, Methods: []string{login.Password}, Answers: []string{p.password}},
			"password, prompted": {User: name, Methods: []string{login.KeyboardInteractive}, Answers: []string{p.password}},
			"key and password":   {User: name, Key: p.key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{p.password}},
		} {
			if method == "key and password" && name == "alice" {
				continue // would count against her rate limit
			}
			if got := client.Login(t.Context(), server, try); got.Outcome != login.Refused && got.Outcome != login.Unasked {
				t.Errorf("%s, %s: %v", name, method, got)
			}
		}
	}
	got, err := login.Enter(t.Context(), client, server, m.account("alice", cards))
	if err != nil {
		t.Fatal(err)
	}
	if in := got.Outcome == login.In && len(got.Prompts) == 1; in == tt.closed || got.Outcome == login.Failed {
		t.Errorf("key and code: %v, prompts %q", got, got.Prompts)
	}
}

// serveAsTheUnit starts sshd, and reports whether it takes its configuration.
func (m *machine) serveAsTheUnit(start func(context.Context, ...string) (*rootfs.SSHD, error), options []string) (login.Server, bool) {
	m.t.Helper()
	if s := run(m.t, m.Command(m.t.Context(), append([]string{"/usr/sbin/sshd", "-t"}, options...)...)); s.code != 0 {
		m.t.Logf("sshd -t: %s", s.err)
		return login.Server{}, false
	}
	if strings.Contains(m.must(append([]string{"/usr/sbin/sshd", "-T"}, options...)...), "\npersourcepenalties ") {
		options = append(options, "-o", "PerSourcePenalties=no")
	}
	s, err := start(m.t.Context(), options...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("sshd:\n%s", s.Log())
		}
	})
	keys, err := m.HostKeys()
	if err != nil {
		m.t.Fatal(err)
	}
	return login.Server{Host: s.Host, Port: s.Port, HostKeys: keys}, true
}
