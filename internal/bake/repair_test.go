// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func TestRepair(t *testing.T) {
	m := newMachine(t)
	if changed, err := Repair(m.Target); changed || err != nil || m.read(target.PAMService) != stock(t, "pam.d-sshd") {
		t.Errorf("a system that was never baked: changed %v, %v", changed, err)
	}
	m.bake()
	good := m.read(target.PAMService)
	if changed, err := Repair(m.Target); changed || err != nil {
		t.Errorf("nothing to do: changed %v, %v", changed, err)
	}
	m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
	if changed, err := Repair(m.Target); !changed || err != nil || m.read(target.PAMService) != good {
		t.Errorf("the package's file: changed %v, %v\n%s", changed, err, m.read(target.PAMService))
	}
	if fi, _ := m.Stat(target.PAMService); fi.Mode().Perm() != 0o644 {
		t.Errorf("mode %v", fi.Mode())
	}
	// An upgraded system is not one that was baked, and its update is the likeliest.
	osRelease := m.read(target.OSRelease)
	for _, upgraded := range []string{"ID=debian\nVERSION_ID=\"14\"\n", "ID=debian\n"} {
		m.put(target.OSRelease, upgraded, 0o644)
		m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
		if changed, err := Repair(m.Target); !changed || err != nil || m.read(target.PAMService) != good {
			t.Errorf("%q: changed %v, %v", upgraded, changed, err)
		}
	}
	m.put(target.OSRelease, "ID=other\n", 0o644)
	if changed, err := Repair(m.Target); changed || !errors.Is(err, ErrSystem) {
		t.Errorf("another distribution: changed %v, %v", changed, err)
	}
	m.put(target.OSRelease, osRelease, 0o644)
	for _, custom := range []string{"auth sufficient pam_u2f.so\n" + good, good + "auth required pam_faillock.so\n", "account required pam_unix.so\n"} {
		m.put(target.PAMService, custom, 0o644)
		if changed, err := Repair(m.Target); changed || !errors.Is(err, ErrPAM) || m.read(target.PAMService) != custom {
			t.Errorf("a file of somebody's: changed %v, %v", changed, err)
		}
	}
	// Another agent at work does not keep the line out.
	unlock, err := m.Lock(target.StateDir)
	m.must(err)
	defer unlock()
	m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
	if changed, err := Repair(m.Target); !changed || err != nil || m.read(target.PAMService) != good {
		t.Errorf("while locked: changed %v, %v", changed, err)
	}
}
