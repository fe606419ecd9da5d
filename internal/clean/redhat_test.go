// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// What the RHEL family has otherwise: caches of both generations of dnf, the names
// by which the mirrors count a machine, and RHEL's subscription.
func TestRedHatTraces(t *testing.T) {
	gone := []string{
		"/var/cache/dnf/baseos-1/repodata/x", "/var/cache/libdnf5/fedora-1/x", "/var/lib/dnf/repos/baseos-1/countme",
		"/etc/pki/consumer/key.pem", "/etc/pki/entitlement/1-key.pem",
		"/etc/ssh/ssh_host_rsa_key", "/var/log/dnf.log.1", "/var/lib/NetworkManager/internal-eth0.lease",
	}
	stays := []string{"/var/lib/dnf/history.sqlite", "/etc/pki/rpm-gpg/RPM-GPG-KEY-EPEL-9", "/etc/yum.repos.d/epel.repo"}
	files := map[string]string{target.Passwd: passwd, target.MachineID: ""}
	for _, name := range append(stays, gone...) {
		files[name] = "x"
	}
	tt := newImage(t, files)
	if _, err := Run(t.Context(), tt, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range gone {
		if tt.Exists(name) {
			t.Errorf("%s is there", name)
		}
	}
	for _, name := range stays {
		if !tt.Exists(name) {
			t.Errorf("%s is gone", name)
		}
	}
}
