// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
)

// userDataOf is user-data that name these users, each with a recipient of one of the
// people, in a policy that form puts into it. It also asks for what must not come true:
// passwords that work over SSH.
func userDataOf(img *image, form func(config map[string]any, policy string), users ...string) string {
	policy := map[string]any{"version": 1}
	var list []map[string]any
	for _, name := range users {
		owner := img.people[name]
		if owner == nil {
			owner = img.people["alice"]
		}
		list = append(list, map[string]any{"name": name, "recipients": []string{owner.recipient}})
	}
	policy["users"] = list
	text, err := json.Marshal(policy)
	if err != nil {
		panic(err)
	}
	config := map[string]any{"ssh_pwauth": true}
	form(config, string(text))
	if text, err = json.Marshal(config); err != nil { // which is YAML
		panic(err)
	}
	return fmt.Sprintf("#cloud-config\n%s\n", text)
}

// byFile has cloud-init write the policy to where the agent reads it.
func byFile(config map[string]any, policy string) {
	config["write_files"] = []map[string]string{{"path": "/var/lib/cloud/instance/totp-instance.yaml", "permissions": "0600", "content": policy}}
}

// byKey leaves it to cloud-init's module that the image has.
func byKey(config map[string]any, policy string) { config["totp"] = json.RawMessage(policy) }

// byKeyWhileBusy is byKey, and has the first tries of cloud-init's module and of the
// agent take longer than their units let them, as on a host that is too busy. The
// pauses have the module come again when the agent's time is up, too.
func byKeyWhileBusy(config map[string]any, policy string) {
	config["bootcmd"] = []string{`for unit in totp-module totp-agent; do
	mkdir -p /run/systemd/system/$unit.service.d
	cat >/run/systemd/system/$unit.service.d/busy.conf <<'EOF'
[Service]
ExecStartPre=+/bin/sh -c "[ -e /run/%N.tried ] || { touch /run/%N.tried; exec sleep 300; }"
TimeoutStartSec=15
RestartSec=20
EOF
done
systemctl daemon-reload`}
	byKey(config, policy)
}

// byNobody says no policy at all.
func byNobody(map[string]any, string) {}

// A user in user-data without an account is reported and does not affect other users.
func TestUnknownUser(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		img := imageOf(t, r, forUserData)
		for name, form := range map[string]func(map[string]any, string){"by file": byFile, "by key": byKey} {
			t.Run(name, func(t *testing.T) {
				s := newServerOf(t, img, userDataOf(img, form, "alice", "bob", "ghost"))
				s.start()
				want := "enroll: ghost: not enrolled: " + enroll.ErrNoAccount.Error()
				if log := s.journal("totp-agent.service"); !strings.Contains(log, want) {
					t.Errorf("%q is not in\n%s", want, log)
				}
				if u := s.user("ghost"); u.Enrolled || u.Why != enroll.ErrNoAccount.Error() {
					t.Errorf("ghost: %+v", u)
				}
				cards := s.cards()
				if len(cards) != 2 {
					t.Errorf("%d cards", len(cards))
				}
				s.kept(cards)
				s.healthy()
				s.short(s.ssh(cards["alice"]), cards["alice"])
			})
		}
	})
}

// A clone's module and agent were stopped at their first tries: sshd did not wait for
// the second ones, which enrolled its users with secrets of their own.
func TestCloneOnABusyHost(t *testing.T) {
	onEach(t, func(t *testing.T, r rootfs.Recipe) {
		img := imageOf(t, r, forUserData)
		s := newServerOf(t, img, userDataOf(img, byFile, "alice", "bob"))
		s.start()
		dead, old := s.cards(), s.states()
		if len(dead) != 2 {
			t.Fatalf("%d cards of the original", len(dead))
		}
		s.powerOff()
		c := s.clone("web2", userDataOf(img, byKeyWhileBusy, "alice", "bob"))
		if err := c.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		// What comes between the two tries is not "activating" alone.
		if err := c.until("the second try", func() bool { return c.active("totp-agent.service") == "active" }); err != nil {
			t.Fatal(err)
		}
		c.deliver()
		for _, unit := range []string{"totp-module", "totp-agent"} {
			if got := c.result(unit + ".service"); got != "success" {
				t.Errorf("%s: %s", unit, got)
			}
			if log := c.journal(unit + ".service"); !strings.Contains(log, "operation timed out") {
				t.Errorf("%s was not stopped at its first try:\n%s", unit, log)
			}
		}
		// cloud-init may start sshd again: its first start is in the journal.
		var sshd, end int64
		times := c.sh(`journalctl --boot --no-pager --output=short-monotonic --unit=ssh.service |
	sed -n '/Server listening/ { s/^\[ *\([0-9]*\)[.]\([0-9]*\)].*/\1\2/p; q }'
systemctl show --property=ExecMainExitTimestampMonotonic --value totp-agent.service`)
		if _, err := fmt.Sscanf(times, "%d\n%d\n", &sshd, &end); err != nil || sshd >= end {
			t.Errorf("the start of sshd and the end of the agent: %q, %v", times, err)
		}
		cards := c.cards()
		if users := differing(old, c.states()); !slices.Equal(users, []string{"alice", "bob"}) || len(cards) != 2 {
			t.Errorf("%d cards; of the clone's secrets those of %v are new", len(cards), users)
		}
		for user, fresh := range cards {
			c.enter(fresh, login.In)
			// It is another machine: what is trusted are its own host keys.
			c.enterAt(c.ssh(fresh), dead[user], login.Refused)
		}
		c.powerOff()
		if users := differing(old, c.states()); !slices.Equal(users, []string{"alice", "bob"}) {
			t.Errorf("after the shutdown, of the clone's secrets those of %v are new", users)
		}
	})
}
