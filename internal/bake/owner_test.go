// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A drop-in of a package is not to be removed by hand: the remedy is to purge the
// package, which is named.
func TestForeignStartOfAPackage(t *testing.T) {
	const dropIn = "ssh.service.d/ec2-instance-connect.conf"
	const eic = "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o \"AuthorizedKeysCommand /usr/share/ec2-instance-connect/eic_run_authorized_keys %%u %%f\" -o \"AuthorizedKeysCommandUser ec2-instance-connect\" $SSHD_OPTS\n"
	for _, test := range []struct{ name, file, list, listed, want string }{
		{"vendor's directory", "/lib/systemd/system/" + dropIn, "ec2-instance-connect.list", "/lib/systemd/system/" + dropIn, "apt-get purge ec2-instance-connect"},
		{"listed by the other name", "/lib/systemd/system/" + dropIn, "ec2-instance-connect.list", "/usr/lib/systemd/system/" + dropIn, "apt-get purge ec2-instance-connect"},
		{"of an architecture, in /etc", target.SystemdUnitDir + "/" + dropIn, "agent:amd64.list", target.SystemdUnitDir + "/" + dropIn, "apt-get purge agent"},
		{"of no package", target.SystemdUnitDir + "/" + dropIn, "other.list", "/etc/other", "remove it; put settings of your own into"},
	} {
		m := newMachine(t)
		m.put(test.file, eic, 0o644)
		m.put(target.DpkgInfo+"/"+test.list, "/.\n"+test.listed+"\n", 0o644)
		_, err := Run(t.Context(), m.Target, m.options())
		if !errors.Is(err, ErrUnit) || !strings.Contains(err.Error(), test.file) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	m := newMachine(t)
	f := &facts{system: redhat("almalinux", "AlmaLinux", "9")}
	if got := f.purge(m.Target, "/usr/lib/systemd/system/sshd.service.d/ec2-instance-connect.conf", "x"); !strings.Contains(got, "dnf remove $(rpm -qf ") {
		t.Errorf("rpm: %s", got)
	}
	if got := f.purge(m.Target, "/etc/systemd/system/sshd.service.d/x.conf", "x"); got != "x" {
		t.Errorf("rpm, the administrator's: %s", got)
	}
}

// The bake says where keys come from that are in no file of a user.
func TestKeySources(t *testing.T) {
	m := newMachine(t)
	handle := m.Handle
	m.fail[target.SSHD+" -T -C user=alice,"] = handle([]string{target.SSHD, "-T", "-C", "user=alice,"})
	a := m.fail[target.SSHD+" -T -C user=alice,"]
	a.Stdout += "authorizedkeyscommand /usr/bin/keys %u\ntrustedusercakeys none\n"
	m.fail[target.SSHD+" -T -C user=alice,"] = a
	var log strings.Builder
	o := m.options()
	o.Log = &log
	if _, err := Run(t.Context(), m.Target, o); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "by AuthorizedKeysCommand /usr/bin/keys %u (") || strings.Contains(log.String(), "TrustedUserCAKeys") {
		t.Errorf("%s", log.String())
	}
}
