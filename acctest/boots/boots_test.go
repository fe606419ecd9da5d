// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
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
		if out, errs, code := s.agent("check"); code != 0 {
			t.Errorf("check of a server that is as the bake left it: exit %d\n%s%s", code, out, errs)
		}
		s.table(s.cards())
	})
}

func TestRebootKeepsSecrets(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		cards, before, sealed := s.cards(), s.states(), s.sealed()
		if len(before) != 2 {
			t.Fatalf("%d states", len(before))
		}
		s.reboot()
		if again := s.sealed(); !maps.Equal(again, sealed) {
			t.Errorf("the envelopes were %v, and are %v", sealed, again)
		}
		s.enter(cards["alice"], login.In)
		s.short(s.ssh(cards["bob"]), cards["bob"])
		s.powerOff()
		after := s.states()
		if len(after) != len(before) {
			t.Errorf("%d states, before it %d", len(after), len(before))
		}
		for user, st := range before {
			if after[user].Secret != st.Secret || after[user].Mark != st.Mark || !slices.Equal(after[user].BackupCodes, st.BackupCodes) {
				t.Errorf("%s has another state", user)
			}
		}
	})
}

func TestCloneGetsNewSecrets(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		s := started(t, r)
		dead, old := s.cards(), s.states()
		s.powerOff()
		c := s.clone("web2", "#cloud-config\n{}\n")
		c.start()
		cards, live := c.cards(), c.states()
		if users := differing(old, live); !slices.Equal(users, []string{"alice", "bob"}) {
			t.Errorf("of the clone's secrets only those of %v are new", users)
		}
		for user, fresh := range cards {
			if fresh.InstanceID != "i-web2" || fresh.Secret != live[user].Secret {
				t.Errorf("%s has card %s of %s", user, fresh.ID, fresh.InstanceID)
			}
			c.enter(fresh, login.In)
			// It is another machine: what is trusted are its own host keys.
			c.enterAt(c.ssh(fresh), dead[user], login.Refused)
		}
	})
}

// moment is when the power is cut in a first boot.
type moment struct {
	name string
	wait func(*server) error
}

var moments = []moment{
	{"before the agent", func(s *server) error { return s.WaitConsole(s.t.Context(), "cloud-init-local.service") }},
	{"while the agent enrolls", func(s *server) error {
		return s.until("the first state file", func() bool { return len(s.list(target.PAMStateDir)) > 0 })
	}},
	{"before the delivery", func(s *server) error { return s.WaitConsole(s.t.Context(), "Finished totp-agent.service") }},
	{"after the first envelope", func(s *server) error {
		return s.until("the first envelope", func() bool { return len(s.list(envelopes)) > 0 })
	}},
}

// After the boot that follows a power cut each user has one live secret, whose
// envelope was delivered and which logs in.
func TestPowerCut(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		for _, m := range moments {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				s := newServer(t, r)
				if err := s.Boot(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := m.wait(s); err != nil {
					t.Fatal(err)
				}
				s.cut()
				t.Logf("states %v, staged %v, ready %v, envelopes %v",
					s.list(target.PAMStateDir), s.list(target.Staged), s.list(target.Ready), s.list(envelopes))
				s.start()
				cards, live := s.cards(), s.states()
				if len(cards) != 2 || len(live) != 2 {
					t.Errorf("%d cards, %d states", len(cards), len(live))
				}
				for user, c := range cards {
					if live[user].Secret != c.Secret || live[user].Mark.ID != c.ID {
						t.Errorf("%s: the envelope is of another secret than the live one", user)
					}
					s.enter(c, login.In)
				}
			})
		}
	})
}
