// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// What the units of sshd make of the administrator's files on a running machine: by
// a restart, a reload, a boot and one sshd a connection.
func TestSSHDStartsWithOurMainFile(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		c := s.cards()["alice"]
		s.sameAsSystemd()

		// sshd reads its files again by SIGHUP, and each connection gets them from it.
		s.sh(`printf 'Match User *\n\tAuthenticationMethods publickey\nMatch all\n' | cat - /etc/ssh/sshd_config >/root/new; cat /root/new >/etc/ssh/sshd_config`)
		s.must("systemctl", "reload", "ssh.service")
		s.keyAlone(s.ssh(c), "alice")
		s.enter(c, login.In)

		s.sh(`printf 'UsePAM yes\nMatch User *\n\tAuthenticationMethods publickey\n' >/etc/ssh/other
cat >/etc/default/ssh <<'END'
SSHD_OPTS="-f /etc/ssh/other -o \"AcceptEnv A B\" \
 -o MaxSessions=7"
END`)
		s.must("systemctl", "restart", "ssh.service")
		s.keyAlone(s.ssh(c), "alice")
		s.sameAsSystemd()
		if got := s.sh(`tr '\0' ' ' </proc/$(systemctl show -P MainPID ssh.service 2>/dev/null || systemctl show --value -p MainPID ssh.service)/cmdline`); !strings.Contains(got, "-o AcceptEnv A B -o MaxSessions=7 -f "+target.SSHDMain) {
			t.Errorf("sshd runs as %q", got)
		}

		// A file that sshd refuses stops no sshd that runs.
		s.sh(`cp /etc/ssh/sshd_config /root/good; echo 'NoSuchKeyword yes' >>/etc/ssh/sshd_config; ! systemctl reload ssh.service; cp /root/good /etc/ssh/sshd_config`)
		s.keyAlone(s.ssh(c), "alice")

		// One sshd a connection, by a socket of systemd-ssh-generator: its service has
		// our arguments as well.
		if r.Suite == "trixie" {
			if got := s.must("systemctl", "show", "-p", "ExecStart", "sshd@x.service"); !strings.Contains(got, "-f "+target.SSHDMain+" ;") {
				t.Errorf("sshd@.service: %s", got)
			}
		}

		s.sh(`rm /etc/ssh/sshd_config /etc/default/ssh`)
		s.reboot()
		s.keyAlone(s.ssh(c), "alice")

		// Overrides that systemd merges, and check reads.
		for _, file := range []string{"/etc/systemd/system/sshd.service.d/x.conf", "/usr/local/lib/systemd/system/ssh.service.d/x.conf", "/run/systemd/system/service.d/x.conf"} {
			s.sh("mkdir -p $(dirname " + file + "); printf '[Service]\\nExecStart=\\nExecStart=/usr/sbin/sshd -D -o AuthenticationMethods=publickey $SSHD_OPTS\\n' >" + file + "; systemctl daemon-reload")
			if !strings.HasPrefix(file, "/run/") { // not on the disk that the test reads
				s.sameAsSystemd()
			}
			out, _, code := s.agent("check")
			if code != 3 || !strings.Contains(out, "ssh-unit: "+file) {
				t.Errorf("%s: exit %d, %s", file, code, out)
			}
			s.sh("rm -r $(dirname " + file + "); systemctl daemon-reload")
		}
	})
}

// sameAsSystemd compares how our reading of the files starts sshd with what systemd
// shows.
func (s *server) sameAsSystemd() {
	s.t.Helper()
	root, err := target.Open(s.Path("/"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer root.Close()
	start, err := bake.StartOf(root)
	if err != nil {
		s.t.Fatal(err)
	}
	shown := map[string]string{}
	for line := range strings.Lines(s.must("systemctl", "show", "-p", "DropInPaths,FragmentPath", "-p", "ExecStart", "ssh.service")) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		shown[key] = value
	}
	_, after, _ := strings.Cut(shown["ExecStart"], "argv[]=")
	if command, _, _ := strings.Cut(after, " ; "); command != start.Command {
		s.t.Errorf("systemd starts %q, we read %q", command, start.Command)
	}
	if got := strings.Fields(shown["DropInPaths"]); !slices.Equal(got, start.Unit.DropIns) {
		s.t.Errorf("systemd has %q, we read %q", got, start.Unit.DropIns)
	}
	if strings.TrimPrefix(shown["FragmentPath"], "/usr") != strings.TrimPrefix(start.Unit.File, "/usr") {
		s.t.Errorf("systemd has %q, we read %q", shown["FragmentPath"], start.Unit.File)
	}
}
