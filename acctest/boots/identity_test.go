// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// What user-data and datasource do to an instance that has its secrets.

// notice is what the console says while no user can log in over SSH.
const notice = "totp-agent: no user can log in to this server over SSH: "

// The datasource cannot be reached in one boot, and in the next one cloud-init has
// forgotten that it has ever run: nothing rotates.
func TestDatasourceUnreached(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		img := imageOf(t, r, forUserData)
		data := userDataOf(img, byFile, "alice", "bob")
		s := newServerOf(t, img, data)
		s.start()
		cards := s.cards()
		if len(cards) != 2 {
			t.Fatalf("%d cards", len(cards))
		}
		s.powerOff()

		if err := s.Remove(); err != nil {
			t.Fatal(err)
		}
		s.same(cards, "DataSourceNone", "unknown: cloud-init found no datasource")
		s.sh("cloud-init clean --logs")
		s.powerOff()

		s.seed("web1", data)
		s.same(cards, "DataSourceNoCloud", "instance-id of DataSourceNoCloud")
		s.finished()
	})
}

// same boots a server that must stay what it was, and logs in with the codes of its
// first boot.
func (s *server) same(cards map[string]card.Card, datasource, identity string) {
	s.t.Helper()
	before, sealed := s.sums(), s.sealed()
	if len(before) != len(cards)+1 {
		s.t.Fatalf("files %v", before)
	}
	s.start()
	s.healthy()
	s.moduleIdle()
	if now := s.sums(); !maps.Equal(now, before) {
		s.t.Errorf("it had the files %v, and has %v", before, now)
	}
	if now := s.sealed(); !maps.Equal(now, sealed) {
		s.t.Errorf("it had the envelopes %v, and has %v", sealed, now)
	}
	s.kept(cards)
	if text := s.must("cat", "/run/cloud-init/result.json"); !strings.Contains(text, datasource) {
		s.t.Errorf("cloud-init's datasource is not %s: %s", datasource, text)
	}
	if got := s.status().Identity; got != identity {
		s.t.Errorf("the identity is %q, want %q", got, identity)
	}
	// To cloud-init it is an instance that it has not seen, with new host keys.
	at := s.shownKeys()
	s.keyAlone(at, "alice")
	s.enterAt(at, cards["bob"], login.In)
	s.enterAt(at, cards["alice"], login.In)
}

// A clone whose user-data say nothing to the agent is closed: the secrets of the
// original are gone, and no user has new ones.
func TestClosedClone(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		img := imageOf(t, r, forUserData)
		s := newServerOf(t, img, userDataOf(img, byFile, "alice", "bob"))
		s.start()
		dead := s.cards()
		s.powerOff()
		original := s.sums()
		if len(dead) != 2 || len(original) != 3 {
			t.Fatalf("%d cards, files %v", len(dead), original)
		}
		c := s.clone("web3", userDataOf(img, byNobody))
		c.start()
		c.healthy()
		c.finished()
		c.moduleIdle()
		at := c.shownKeys()
		if r := c.keyAlone(at, "alice"); !strings.Contains(r.Banner, notice) {
			t.Errorf("sshd says %q", r.Banner)
		}
		c.enterAt(at, dead["alice"], login.Refused)
		if sums := c.sums(); len(sums) != 1 || sums[target.Identity] == original[target.Identity] {
			t.Errorf("the original has the files %v, the clone %v", original, sums)
		}
		for user := range dead {
			if u := c.user(user); u.Enrolled || u.ID != "" || u.Why != enroll.ErrNoRecipient.Error() {
				t.Errorf("%s: %+v", user, u)
			}
		}
		if st := c.status(); st.InstanceID != "i-web3" || st.Notice == "" || !strings.Contains(c.Console(), notice) {
			t.Errorf("%s says %q", st.InstanceID, st.Notice)
		}
		for _, dir := range []string{target.PAMStateDir, target.Staged, target.Ready, target.Receipts, envelopes} {
			if names := c.list(dir); len(names) > 0 {
				t.Errorf("in %s are %v", dir, names)
			}
		}
	})
}

// healthy wants agent and delivery to have succeeded in this boot, and the status to
// have nothing to complain about.
func (s *server) healthy() {
	s.t.Helper()
	for _, unit := range []string{"totp-agent.service", "totp-deliver.service"} {
		if got := s.result(unit); got != "success" {
			s.t.Errorf("%s: %s", unit, got)
		}
	}
	if st := s.status(); st.Error != "" || len(st.RefusedLayers) > 0 {
		s.t.Errorf("the status has the error %q, and refused layers %v", st.Error, st.RefusedLayers)
	}
}

// moduleIdle wants the unit of cloud-init's module to have found nothing to do.
func (s *server) moduleIdle() {
	s.t.Helper()
	if got := s.result("totp-module.service"); got != "exec-condition" {
		s.t.Errorf("totp-module.service: %s", got)
	}
}

// finished wants cloud-init to have ended without an error.
func (s *server) finished() {
	s.t.Helper()
	// Its exit status is 2 where it could do without something: a root has no ip.
	out, _ := s.Command(s.t.Context(), "cloud-init", "status", "--long").CombinedOutput()
	if !strings.HasPrefix(string(out), "status: done\n") || strings.Contains(string(out), "totp") {
		s.t.Errorf("cloud-init: %s", out)
	}
}

// kept wants each user of the cards to have the enrollment of the first boot.
func (s *server) kept(cards map[string]card.Card) {
	s.t.Helper()
	for _, c := range cards {
		if u := s.user(c.User); !u.Enrolled || u.ID != c.ID || u.Generation != 1 {
			s.t.Errorf("%s has %+v, want the enrollment %s", c.User, u, c.ID)
		}
	}
	if st := s.status(); st.Notice != "" || strings.Contains(s.Console(), notice) {
		s.t.Errorf("the notice is %q", st.Notice)
	}
}
