// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

func TestFirstBootEnrolls(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		for _, unit := range []string{"totp-agent.service", "totp-deliver.service"} {
			if got := s.result(unit); got != "success" {
				t.Errorf("%s: %s", unit, got)
			}
		}
		s.cycles()
		s.table(s.cards())
	})
}

func TestRebootKeepsSecrets(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		cards, before := s.cards(), s.states()
		if len(before) != 2 {
			t.Fatalf("%d states", len(before))
		}
		s.reboot()
		if users := differing(before, s.states()); len(users) > 0 {
			t.Errorf("after the reboot %v have other secrets", users)
		}
		s.enter(cards["alice"], login.In)
		s.short(s.ssh(cards["bob"]), cards["bob"])
	})
}
