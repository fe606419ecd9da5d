// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// onOpenStack is a machine whose image names the channel.
func onOpenStack(t *testing.T) *machine {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nchannels: [{type: openstack}, {type: file}]\n")
	return m
}

// compact is the sealed compact form of a user's card, nil if there is none.
func (m *machine) compact(id string) []byte {
	m.Helper()
	b, err := deliver.OpenOutbox(m.t).Compact(id)
	if err != nil {
		m.Fatal(err)
	}
	return b
}

// Beside the card is its compact form, for the same recipients, with the same
// secret, and small enough for the channel.
func TestCompact(t *testing.T) {
	m := onOpenStack(t)
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	if u := user(m.mustRun(), "alice"); !u.Enrolled || u.Remark != "" {
		t.Errorf("status %+v", u)
	}
	state, c := m.enrolled("alice")
	sealed := m.compact(state.Mark.ID)
	if n := base64.StdEncoding.EncodedLen(len(sealed)); n == 0 || n > policy.CompactRoom {
		t.Fatalf("%d characters", n)
	}
	id, err := age.ParseX25519Identity(testIdentity)
	if err != nil {
		t.Fatal(err)
	}
	text, err := seal.Open(sealed, id)
	if err != nil {
		t.Fatal(err)
	}
	got, err := card.ParseCompact(text)
	if err != nil || got.Secret != c.Secret || !slices.Equal(got.BackupCodes, c.BackupCodes) || got.ID != c.ID || got.User != c.User || got.InstanceID != c.InstanceID {
		t.Errorf("compact card of %q, %v", got.ID, err)
	}
	res, err := m.reset("alice")
	if err != nil || m.compact(res.ID) == nil || res.Remark != "" || !slices.Equal(res.Open, []string{"openstack", "file"}) {
		t.Errorf("reset: %+v, %v", res, err)
	}
}

// No channel wants it, no such form is made.
func TestCompactNotWanted(t *testing.T) {
	m := onOpenStack(t)
	m.put(target.ImagePolicy, "version: 1\nchannels: [{type: openstack, user: bob}, {type: file}]\n")
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	m.mustRun()
	if state, _ := m.enrolled("alice"); m.compact(state.Mark.ID) != nil {
		t.Error("there is a compact form")
	}
}

// Recipients of the user-data that leave no room: the user is enrolled, the other
// channels have the card, and the status names recipient, channel and remedy, at
// this boot and at the next.
func TestCompactNoRoom(t *testing.T) {
	m := onOpenStack(t)
	to := pqRecipient(t)
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + to + "]}]\n")
	for range 2 {
		u := user(m.mustRun(), "alice")
		if !u.Enrolled || m.compact(u.ID) != nil {
			t.Errorf("status %+v", u)
		}
		for _, part := range []string{"openstack", to[:11], "age1… (X25519)"} {
			if !strings.Contains(u.Remark, part) {
				t.Errorf("remark %q does not have %q", u.Remark, part)
			}
		}
	}
	res, err := m.reset("alice")
	if err != nil || res.Remark == "" || !slices.Equal(res.Open, []string{"file"}) {
		t.Errorf("reset: %+v, %v", res, err)
	}
}

// What a channel of the original has taken, one of its clone's has not: each
// instance has a place of its own.
func TestCloneHasItsOwnPlace(t *testing.T) {
	m := onOpenStack(t)
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	m.mustRun()
	state, _ := m.enrolled("alice")
	m.put(target.Receipts+"/"+state.Mark.ID+".json", `{"id":"`+state.Mark.ID+`","user":"alice","channels":{"openstack":{"state":"delivered","tries":1,"last":"2026-01-02T03:04:05Z"}}}`)
	if res, err := m.reset("alice"); err != nil || !slices.Equal(res.Open, []string{"file"}) || !slices.Equal(res.Spent, []string{"openstack"}) {
		t.Errorf("reset of the original: %+v, %v", res, err)
	}
	m.instance("i-2")
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	m.mustRun()
	m.enrolled("alice")
	if res, err := m.reset("alice"); err != nil || !slices.Equal(res.Open, []string{"openstack", "file"}) || res.Spent != nil {
		t.Errorf("reset of the clone: %+v, %v", res, err)
	}
}
