// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"fmt"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// redhat is the row of a system of the RHEL family. Nobody has tested one of
// them, so that they are baked only for those who ask for it.
//
// Its PAM module is in EPEL, but for Fedora, which has it itself. /etc/pam.d/sshd
// belongs to openssh-server, and authselect does not write it. Before version 9,
// OpenSSH knew no Include, which the whole of our configuration rests on.
func redhat(id, name, since string) system {
	return system{
		id: id, versionID: since, name: name, andLater: true, support: Untested, onRequest: true,
		pamPackage:    "google-authenticator",
		sshPackage:    "openssh-server",
		clientPackage: "openssh-clients",
		timePackage:   "chrony",
		epel:          id != "fedora",
		pamPassword:   "auth substack password-auth",
		sshdStart:     target.SSHD + " -D",
		sshdRest:      "$OPTIONS",
		sshService:    "sshd.service",
		sshUnit:       "/usr/lib/systemd/system/sshd.service",
		sshSocket:     "sshd.socket",
		sshTemplates:  []string{"sshd@.service"},
		sshdInetd:     "-" + target.SSHD + " -i",
	}
}

// cryptoPolicy is the crypto policy of the whole system, crypto-policies(7):
// "DEFAULT", "FIPS:OSPP"; empty where there is none. sshd reads it from a file that
// sorts after ours, so that lists of ours come before it.
func cryptoPolicy(t *target.Target) string {
	for _, name := range []string{target.CryptoPolicyState, target.CryptoPolicyConfig} {
		b, err := t.ReadFile(name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				return line
			}
		}
	}
	return ""
}

// policyProblem refuses what a policy asks for and this system cannot have. On one
// that is bound to FIPS 140 it is lists of ours, which begin with algorithms that
// it forbids: sshd would not start.
func (f *facts) policyProblem(t *target.Target) error {
	if f.policy.CloudInitModule && !f.dpkg {
		return fmt.Errorf("cloud_init_module: true: %s: %w: where its Python looks for the module, ours is not; leave the key out, and have user-data write the layer by write_files",
			f.name, ErrCloudInit)
	}
	if p := cryptoPolicy(t); named(ours, f.policy.SSHD.Algorithms) && strings.HasPrefix(p, "FIPS") {
		return fmt.Errorf("sshd.algorithms: %q: the crypto policy of this system is %q, which forbids some of them: %w; use distro, which leaves the algorithms to that policy",
			f.policy.SSHD.Algorithms, p, ErrAlgorithms)
	}
	return nil
}

// cryptoRemark says what becomes of the system's crypto policy.
func (f *facts) cryptoRemark(t *target.Target) string {
	if p := cryptoPolicy(t); p != "" && named(ours, f.policy.SSHD.Algorithms) {
		return fmt.Sprintf("; sshd.algorithms: %s comes before the system's crypto policy %s", f.policy.SSHD.Algorithms, p)
	}
	return ""
}
