// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// TestDurableOrder holds a first boot with two users to the order of its writes
// and syncs. Stopping the process shows that no step is out of place, and cannot
// show that a sync is missing: what the process wrote is there all the same.
func TestDurableOrder(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n  - {name: bob, recipients: [" + testRecipient + "]}\n")
	// The directories of a baked image are there.
	for _, dir := range []string{target.StateDir, target.PAMStateDir} {
		if err := m.t.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var trace []string
	m.t.Trace(func(step, name string) { trace = append(trace, step+" "+name) })
	m.mustRun()
	_, alice := m.enrolled("alice")
	_, bob := m.enrolled("bob")
	ids := strings.NewReplacer(alice.ID, "ALICE", bob.ID, "BOB")
	for i := range trace {
		trace[i] = ids.Replace(trace[i])
	}
	want := []string{
		"syncfs /var/lib/totp-agent", // the directories made
		"syncfs /",                   // what cloud-init has done

		// Nobody is enrolled before it is known for which machine.
		"write /var/lib/totp-agent/identity.json",
		"sync /var/lib/totp-agent/identity.json",
		"rename /var/lib/totp-agent/identity.json",
		"syncdir /var/lib/totp-agent",

		"write /var/lib/totp-agent/outbox/staged/.tmp-ALICE/envelope.age",
		"write /var/lib/totp-agent/outbox/staged/.tmp-ALICE/meta.json",
		"write /var/lib/totp-agent/outbox/staged/.tmp-BOB/envelope.age",
		"write /var/lib/totp-agent/outbox/staged/.tmp-BOB/meta.json",
		"write /var/lib/google-authenticator/alice",
		"write /var/lib/google-authenticator/bob",
		"syncfs /var/lib/totp-agent/outbox/staged",
		"rename /var/lib/totp-agent/outbox/staged/ALICE",
		"rename /var/lib/totp-agent/outbox/staged/BOB",
		"syncdir /var/lib/totp-agent/outbox/staged",
		"rename /var/lib/google-authenticator/alice", // the commit
		"rename /var/lib/google-authenticator/bob",
		"syncdir /var/lib/google-authenticator",
		"rename /var/lib/totp-agent/outbox/ready/ALICE",
		"rename /var/lib/totp-agent/outbox/ready/BOB",
		"syncdir /var/lib/totp-agent/outbox/ready",
		"syncdir /var/lib/totp-agent/outbox/staged",
	}
	// The status and the notice are of this boot alone.
	trace = slices.DeleteFunc(trace, func(s string) bool {
		return strings.Contains(s, " /run") || strings.Contains(s, " /etc")
	})
	if !slices.Equal(trace, want) {
		t.Errorf("order\n%s\nwant\n%s", strings.Join(trace, "\n"), strings.Join(want, "\n"))
	}
}
