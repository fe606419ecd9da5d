// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// What the RHEL family has otherwise than Debian, imitated on Debian 12 with the
// stock files of package bake's tests: its PAM files, sshd_config, crypto policy and
// units are read by a real PAM, sshd and systemd. dnf, rpm and restorecon are
// scripts. It is not RHEL that is tested.
func TestLikeRedHat(t *testing.T) {
	t.Parallel()
	m := newGuestOf(t, rootfs.Debian12)
	for name, stock := range map[string]string{
		"/etc/pam.d/sshd":                       "pam.d-sshd",
		"/etc/pam.d/password-auth":              "pam.d-password-auth",
		"/etc/pam.d/postlogin":                  "pam.d-postlogin",
		"/etc/ssh/sshd_config":                  "sshd_config",
		"/etc/ssh/sshd_config.d/50-redhat.conf": "50-redhat.conf",
		"/lib/systemd/system/sshd.service":      "sshd.service",
		"/lib/systemd/system/sshd@.service":     "sshd@.service",
	} {
		text, err := os.ReadFile("../internal/bake/testdata/rhel9-" + stock)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(m.Path(name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m.must("sh", "-euc", `
rm /etc/os-release
printf 'NAME="Rocky Linux"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"\nPRETTY_NAME="Rocky Linux 9.6"\n' >/etc/os-release
rm -f /lib/systemd/system/ssh.service /lib/systemd/system/ssh.socket /lib/systemd/system/ssh@.service
rm -f /etc/systemd/system/sshd.service /etc/systemd/system/multi-user.target.wants/ssh.service /etc/default/ssh
ln -s /usr/lib/systemd/system/sshd.service /etc/systemd/system/multi-user.target.wants/sshd.service
printf '[Unit]\nWants=sshd-keygen@rsa.service sshd-keygen@ed25519.service\n' >/lib/systemd/system/sshd-keygen.target
printf '[Service]\nType=oneshot\nExecStart=/bin/true\n' >/lib/systemd/system/sshd-keygen@.service
printf '[Socket]\nListenStream=22\nAccept=yes\n' >/lib/systemd/system/sshd.socket
printf '[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n' >/lib/systemd/system/chronyd.service
mkdir -p /usr/libexec/openssh /etc/sysconfig /etc/crypto-policies/state /etc/crypto-policies/back-ends
ln -s /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server
printf 'OPTIONS="-o PasswordAuthentication=yes"\n' >/etc/sysconfig/sshd
echo DEFAULT >/etc/crypto-policies/state/current
printf 'Ciphers aes128-ctr\nMACs hmac-sha1\nKexAlgorithms ecdh-sha2-nistp256\nHostKeyAlgorithms ecdsa-sha2-nistp256\nPubkeyAcceptedAlgorithms ecdsa-sha2-nistp256\n' \
	>/etc/crypto-policies/back-ends/opensshserver.config
cat >/usr/bin/dnf <<'END'
#!/bin/sh
echo "$@" >>/root/dnf.log
case " $* " in
*" epel-release "*) touch /root/epel ;;
*" google-authenticator "*)
	[ -e /root/epel ] || { echo 'Error: Unable to find a match: google-authenticator' >&2; exit 1; }
	apt-get -q -y install --no-install-recommends libpam-google-authenticator ;;
esac
END
cat >/usr/bin/rpm <<'END'
#!/bin/sh
shift 3
for n; do case $n in epel-release) [ -e /root/epel ] || { echo "package $n is not installed"; continue; } ;; esac; echo "$n 1-1"; done
END
printf '#!/bin/sh\necho "$@" >>/root/restorecon.log\n' >/usr/sbin/restorecon
chmod 0755 /usr/bin/dnf /usr/bin/rpm /usr/sbin/restorecon
`)

	// Not without the word.
	if _, err := bakeRoot(t.Context(), m.Root, m.img.policy); err == nil || !strings.Contains(err.Error(), `"Rocky Linux 9.6": nobody has tested this system; to bake it all the same, set allow_untested_system = true`) {
		t.Fatalf("without allow_untested_system: %v", err)
	}
	s := run(t, m.Command(t.Context(), newAgent, "bake", "--policy", "/root/policy.yaml", "--allow-untested-system"))
	if s.code != 0 {
		t.Fatalf("bake: exit %d\n%s", s.code, s.err)
	}
	for _, want := range []string{"WARNING", "Rocky Linux 9.6", "installed google-authenticator, epel-release", "crypto policy DEFAULT", "restorecon has looked at"} {
		if !strings.Contains(s.err, want) {
			t.Errorf("bake does not say %q:\n%s", want, s.err)
		}
	}
	if got := m.must("cat", "/root/restorecon.log"); !strings.Contains(got, pamStates) || !strings.HasPrefix(got, "-R ") {
		t.Errorf("restorecon %s", got)
	}
	if got := m.must("/usr/sbin/sshd", "-T", "-C", "user=alice,host=x,addr=192.0.2.1"); !strings.Contains(got, "\nciphers chacha20-poly1305@openssh.com,") ||
		!strings.Contains(got, "\nchallengeresponseauthentication yes\n") && !strings.Contains(got, "\nkbdinteractiveauthentication yes\n") {
		t.Errorf("sshd would do\n%s", got)
	}
	if s := run(t, m.Command(t.Context(), "systemd-analyze", "verify", "--man=no", "sshd.service")); s.code != 0 || strings.Contains(s.out+s.err, "ssh") || strings.Contains(s.out+s.err, "totp") {
		t.Errorf("systemd-analyze verify: exit %d\n%s%s", s.code, s.out, s.err)
	}
	// What the image came with has no effect beside ours, and is reported.
	if s := m.agent("check"); s.code != 1 || !strings.Contains(s.out, "ssh-options: /etc/sysconfig/sshd") {
		t.Errorf("check: exit %d\n%s%s", s.code, s.out, s.err)
	}
	// The self-test is not to be skipped here.
	if s := m.ok("selftest", "--skip"); !strings.Contains(s.out+s.err, "key and code") {
		t.Errorf("selftest --skip:\n%s%s", s.out, s.err)
	}
	m.table(m.firstBoot())

	// A package's own file put back is found, and repaired at the next boot.
	stock, err := os.ReadFile("../internal/bake/testdata/rhel9-pam.d-sshd")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(m.Path("/etc/pam.d/sshd"), stock, 0o644); err != nil {
		t.Fatal(err)
	}
	if s := m.agent("check"); s.code != 3 || !strings.Contains(s.out, "pam-block: /etc/pam.d/sshd") {
		t.Errorf("check: exit %d\n%s%s", s.code, s.out, s.err)
	}
	m.ok("enroll")
	m.must("sed", "-i", "s/-o PasswordAuthentication=yes//", "/etc/sysconfig/sshd")
	m.ok("check")
}
