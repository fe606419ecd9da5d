// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// What Ubuntu has otherwise than Debian, imitated on the Debian that is nearest to
// it: it is not Ubuntu that is tested, but that a bake copes with the differences.
func TestLikeUbuntu(t *testing.T) {
	t.Parallel()
	for _, u := range []struct {
		version string
		nearest rootfs.Recipe
	}{{"22.04", rootfs.Debian12}, {"24.04", rootfs.Debian12}, {"26.04", rootfs.Debian13}} {
		t.Run(u.version, func(t *testing.T) {
			t.Parallel()
			m := newGuestOf(t, u.nearest)
			m.must("sh", "-euc", `
rm /etc/os-release
printf 'NAME=Ubuntu\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="`+u.version+`"\nPRETTY_NAME="Ubuntu `+u.version+` LTS"\n' >/etc/os-release
printf 'PasswordAuthentication no\n' >/etc/ssh/sshd_config.d/60-cloudimg-settings.conf
rm -f /etc/systemd/system/multi-user.target.wants/ssh.service
mkdir -p /etc/systemd/system/sockets.target.wants
if [ `+u.version+` != 22.04 ]; then # from 22.10 on RequiredBy=ssh.service
	mkdir -p /etc/systemd/system/ssh.service.requires
	ln -s /lib/systemd/system/ssh.socket /etc/systemd/system/ssh.service.requires/ssh.socket
fi
ln -s /lib/systemd/system/ssh.socket /etc/systemd/system/sockets.target.wants/ssh.socket
`)
			said, err := bakeRoot(t.Context(), m.Root, m.img.policy)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(said, "WARNING") || !strings.Contains(said, "Ubuntu "+u.version) {
				t.Errorf("no warning in\n%s", said)
			}
			if got := m.must("grep", "-c", `"support": "untested"`, "/var/lib/totp-agent/report.json"); got != "1\n" {
				t.Errorf("the report says it %s times", got)
			}
			if got := m.must("readlink", "/etc/systemd/system/ssh.socket", "/etc/systemd/system/multi-user.target.wants/ssh.service"); got != "/dev/null\n/lib/systemd/system/ssh.service\n" {
				t.Errorf("units: %q", got)
			}
			// sshd starts at a boot: enabled above, and by nothing that is masked.
			if s := run(t, m.Command(t.Context(), "systemd-analyze", "verify", "--man=no", "ssh.service")); s.code != 0 || strings.Contains(s.out+s.err, "ssh.s") {
				t.Errorf("systemd-analyze verify: exit %d\n%s%s", s.code, s.out, s.err)
			}
			if there := m.exist("/etc/systemd/system/ssh.service.requires/ssh.socket", "/etc/systemd/system/sockets.target.wants/ssh.socket"); there != nil {
				t.Errorf("still there: %q", there)
			}
			m.table(m.firstBoot())
			m.ok("check")
		})
	}
}
