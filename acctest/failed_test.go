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

// A bake that fails after apt has done its part puts every file of ours back, and
// names the packages that it leaves.
func TestAFailedBakeNamesWhatStays(t *testing.T) {
	t.Parallel()
	m := newGuestOf(t, rootfs.Debian11)
	const bad = "/etc/ssh/sshd_config.d/99-bad.conf"
	if err := os.WriteFile(m.Path(bad), []byte("NoSuchKeyword yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	files := []string{"/etc/pam.d/sshd", "/etc/ssh/sshd_config", "/etc/ssh/moduli"}
	before := m.must(append([]string{"sha256sum"}, files...)...)
	_, err := bakeRoot(t.Context(), m.Root, m.img.policy)
	if err == nil || !strings.Contains(err.Error(), "NoSuchKeyword") ||
		!strings.Contains(err.Error(), "\ntotp-agent: libpam-google-authenticator, systemd-timesyncd: installed by this bake, and not removed again") {
		t.Errorf("%v", err)
	}
	if after := m.must(append([]string{"sha256sum"}, files...)...); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	if there := m.exist(agentPath, "/etc/totp-agent", "/var/lib/totp-agent", pamStates, "/etc/ssh/sshd_config.d/00-00-totp.conf", "/etc/systemd/system/totp-agent.service"); there != nil {
		t.Errorf("there is %q", there)
	}
	m.must("dpkg", "--status", "libpam-google-authenticator", "systemd-timesyncd")
	// The next bake finds them, and is content when it is let.
	if err := os.Remove(m.Path(bad)); err != nil {
		t.Fatal(err)
	}
	if _, err := bakeRoot(t.Context(), m.Root, m.img.policy); err != nil {
		t.Error(err)
	}
}
