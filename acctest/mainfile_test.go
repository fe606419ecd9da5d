// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// Whatever the administrator's own files of sshd say, and what is added to its
// command line: a key alone is refused, and so is a key with a password. Key and
// code are accepted wherever sshd starts.
func TestMainFileDoesNotOpenTheLogin(t *testing.T) {
	t.Parallel()
	const open = "AuthenticationMethods publickey\n\tPasswordAuthentication yes\n\tKbdInteractiveAuthentication no\n"
	first := func(text string) string {
		return "printf '%b\\n' '" + strings.ReplaceAll(text, "\n", `\n`) + "' | cat - /etc/ssh/sshd_config >/root/new; cat /root/new >/etc/ssh/sshd_config"
	}
	opts := func(value string) string {
		return "cat >>/etc/default/ssh <<'END'\nSSHD_OPTS=" + value + "\nEND"
	}
	tryToUndo(t, []undoCase{
		// The main file of the administrator, which the unit's sshd reads after ours.
		{"a Match block above our Include", first("Match User carol\n\tAuthenticationMethods publickey\nMatch all"), false, "", ""},
		{"a Match block for all users above our Include", first("Match User *\n\t" + open + "Match all"), false, "", ""},
		{"every keyword of a login in a Match block", first("Match User *\n\t" + open + "\tPermitEmptyPasswords yes\n\tHostbasedAuthentication yes\n\tGSSAPIAuthentication yes\n\tKerberosAuthentication yes\n\tPermitRootLogin prohibit-password\nMatch all"), false, "", ""},
		{"other criteria", first("Match Address 127.0.0.0/8\n\t" + open + "Match Group *\n\t" + open + "Match LocalAddress 127.0.0.1\n\t" + open + "Match LocalPort 1-65535\n\t" + open + "Match Host *\n\t" + open + "Match all"), true, "", ""}, // no range of ports
		{"other criteria", first("Match Address 127.0.0.0/8\n\t" + open + "Match Group *\n\t" + open + "Match LocalAddress 127.0.0.1\n\t" + open + "Match Host *\n\t" + open + "Match all"), false, "", ""},
		{"users that do not exist", first("Match invalid-user\n\t" + open + "Match all"), false, "trixie", ""},
		{"an Include of a Match block above ours", `printf 'Match User *\n\t` + open + `' >/etc/ssh/site.conf; ` + first("Include /etc/ssh/site.conf"), false, "", ""},
		{"an Include of a pattern above ours", `mkdir /etc/ssh/site; printf 'Match User *\n\t` + open + `' >/etc/ssh/site/00.conf; ` + first("Include site/*.conf"), false, "", ""},
		{"an Include without an end", first("Include /etc/ssh/sshd_totp.conf"), true, "", ""},
		{"another PAM service for all", first("UsePAM yes\nMatch all\nPAMServiceName other"), false, "trixie", ""},
		{"another PAM service for all", first("UsePAM yes\nMatch all\nPAMServiceName other"), true, "bullseye bookworm", ""}, // unknown there
		{"AuthenticationMethods any above our Include", first("AuthenticationMethods any"), false, "bullseye trixie", ""},
		{"AuthenticationMethods any above our Include", first("AuthenticationMethods any"), true, "bookworm", ""},
		{"globals above our Include", first("UsePAM no\nAuthenticationMethods publickey\nPasswordAuthentication yes\nPermitEmptyPasswords yes"), false, "", ""},
		{"more keys, certificates and information", first("TrustedUserCAKeys /etc/ssh/ssh_host_ed25519_key.pub\nAuthorizedKeysCommand /bin/cat /home/%u/.ssh/authorized_keys\nAuthorizedKeysCommandUser root\nExposeAuthInfo yes\nPermitUserRC yes\nPermitUserEnvironment yes"), false, "", ""},
		{"a whole new sshd_config with a Match block", `printf 'Port 2222\nUsePAM yes\nMatch User *\n\t` + open + `' >/etc/ssh/sshd_config`, false, "", ""},
		{"no sshd_config", `rm /etc/ssh/sshd_config`, false, "", ""},
		{"an empty sshd_config", `: >/etc/ssh/sshd_config`, false, "", ""},
		{"a directory for sshd_config", `rm /etc/ssh/sshd_config; mkdir /etc/ssh/sshd_config`, false, "", ""},
		{"a link to nowhere for sshd_config", `ln -sf /nowhere /etc/ssh/sshd_config`, true, "", ""},
		{"a huge sshd_config", `for i in $(seq 20000); do echo "# a line that makes this file larger than one that anyone reads"; done >/etc/ssh/sshd_config; printf 'Match User *\n\t` + open + `' >>/etc/ssh/sshd_config`, false, "bullseye bookworm", ""},
		{"a huge sshd_config", `for i in $(seq 2000); do echo "# a line that makes this file larger than one that anyone reads"; done >/etc/ssh/sshd_config; printf 'Match User *\n\t` + open + `' >>/etc/ssh/sshd_config`, false, "trixie", ""}, // OpenSSH 10 passes no more than 256 KiB on to sshd-session
		{"no sshd_config, with a socket of systemd-ssh-generator", `rm /etc/ssh/sshd_config`, false, "trixie", "sshd@.service"},
		{"a Match block, with ssh.socket", first("Match User *\n\t" + open + "Match all"), false, "bullseye", "ssh@.service"},
		{"a Match block, with a socket of systemd-ssh-generator", first("Match User *\n\t" + open + "Match all"), false, "trixie", "sshd@.service"},
		{"the directory of drop-ins purged", `rm /etc/ssh/sshd_config.d/*; ` + first("Match User *\n\t"+open+"Match all"), false, "", ""},
		{"our main file gone", `rm /etc/ssh/sshd_totp.conf`, true, "", ""},

		// What the administrator adds to the command line.
		{"SSHD_OPTS with -f", `printf 'UsePAM yes\nMatch User *\n\t` + open + `' >/etc/ssh/other; ` + opts(`"-f /etc/ssh/other"`), false, "", ""},
		{"SSHD_OPTS with -f, with a socket of systemd-ssh-generator", `printf 'UsePAM yes\nMatch User *\n\t` + open + `' >/etc/ssh/other; ` + opts(`'-f/etc/ssh/other'`), false, "trixie", "sshd@.service"},
		{"SSHD_OPTS with other values", opts(`'-4 -o AuthenticationMethods=publickey -o "PasswordAuthentication yes" -oUsePAM=no -o PermitEmptyPasswords=yes'`), false, "", ""},
		{"SSHD_OPTS with a PAM service", opts(`-o PAMServiceName=other`), false, "trixie", ""},
		{"SSHD_OPTS with a PAM service", opts(`-o PAMServiceName=other`), true, "bullseye bookworm", ""},
		{"SSHD_OPTS with Include", opts(`-o Include=/etc/ssh/other`), true, "", ""},
		{"SSHD_OPTS with Match", opts(`-o Match=all`), true, "", ""},
		{"SSHD_OPTS that ends options", opts(`--`), true, "", ""},
		{"SSHD_OPTS that lacks a value", opts(`-o`), true, "", ""},
		{"SSHD_OPTS that takes the next word", opts(`-f`), true, "", ""},
	})
}

// What the administrator's file says of everything else counts: ports, subsystems,
// and settings that are not of the login.
func TestMainFileStillCounts(t *testing.T) {
	t.Parallel()
	const replaced = `printf 'Port 2222\nPort 2200\nSubsystem sftp internal-sftp\nBanner /etc/issue\nAllowUsers alice\nAcceptEnv SITE\nMatch User alice\n\tChrootDirectory none\n\tX11DisplayOffset 77\n' >/etc/ssh/sshd_config`
	const added = `printf 'Port 2222\nPort 2200\nBanner /etc/issue\nAllowUsers alice\nAcceptEnv SITE\n' >/etc/ssh/sshd_config.d/50-site.conf; sed -i 's/^Subsystem.*/Subsystem sftp internal-sftp/' /etc/ssh/sshd_config`
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			m := newMachineOf(t, r)
			for name, script := range map[string]string{"replaced": replaced, "added to": added} {
				m := cloneOf(t, m.img, m.Root)
				m.must("ssh-keygen", "-A")
				m.must("sh", "-euc", script)
				out := m.must(append([]string{"/usr/sbin/sshd", "-T", "-C", "user=alice,host=h,addr=192.0.2.1,laddr=192.0.2.2,lport=22"}, m.unitOptions()...)...)
				for _, line := range []string{"port 2222", "port 2200", "subsystem sftp internal-sftp", "banner /etc/issue", "allowusers alice", "acceptenv SITE",
					"authenticationmethods publickey,keyboard-interactive"} {
					if !strings.Contains("\n"+out, "\n"+line+"\n") {
						t.Errorf("%s: no line %q in\n%s", name, line, out)
					}
				}
				// Each host key once: sshd counts the lines that it reads.
				if n := strings.Count(out, "\nhostkey /etc/ssh/ssh_host_ed25519_key\n"); n != 1 {
					t.Errorf("%s: the Ed25519 host key %d times", name, n)
				}
			}
		})
	}
}
