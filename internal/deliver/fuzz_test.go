// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// FuzzReceipt reads a damaged or foreign receipt. It is either rejected as damaged or
// read back the same after it was saved, and a delivery pass works with both.
func FuzzReceipt(f *testing.F) {
	whole, err := json.Marshal(Receipt{ID: aliceID, User: "alice", Days: 3, Day: "2026-01-02", Channels: map[string]Attempt{
		"a": {State: Unconfirmed, Tries: 3, Last: epoch, Next: epoch, Boot: "one", Error: "refused", Unclear: true},
	}})
	must(f, err)
	for _, seed := range []string{
		"", "{", "null", "[]", string(whole), string(whole[:40]),
		`{"id":"` + aliceID + `","user":"alice","channels":null}`,
		`{"id":"` + aliceID + `","user":"alice","channels":{"a":{"state":"delivered","tries":-1}}}`,
		`{"id":"` + aliceID + `","user":"alice","channels":{"a":{"state":"\u001b[31m","tries":9223372036854775807}},"days":-9,"day":"9999"}`,
		`{"id":"` + bobID + `","user":"alice"}`, `{"id":"` + aliceID + `","user":"a/b"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := newMachine(t, policy.RequireAny, acked("a"), offered("b"))
		ready(t, m.box, aliceID, "alice")
		targettest.Put(t, m.tg, receiptFile(aliceID), string(data), 0o600)
		r, err := m.box.Receipts(aliceID)
		switch {
		case errors.Is(err, ErrReceipt):
		case err != nil:
			t.Fatal(err)
		case r.ID != aliceID || frame.CheckUser(r.User) != nil:
			t.Fatalf("a receipt of envelope %q and user %q", r.ID, r.User)
		default:
			must(t, m.box.saveReceipt(r))
			if again, err := m.box.Receipts(aliceID); err != nil || !reflect.DeepEqual(again, r) {
				t.Fatalf("saved %+v and read %+v, %v", r, again, err)
			}
		}
		if s := m.run(); s.Envelopes != 1 {
			t.Errorf("the pass: %+v", s)
		}
	})
}

// FuzzMeta reads the metadata of an envelope in the outbox. Everything that a pass lists
// has a valid ID and user, and damage affects that envelope only.
func FuzzMeta(f *testing.F) {
	whole, err := json.Marshal(meta(bobID, "bob"))
	must(f, err)
	for _, seed := range []string{
		"", "{", "null", string(whole), string(whole[:30]), string(whole) + "{}",
		`{"id":"` + bobID + `","user":"../bob"}`, `{"id":"` + aliceID + `","user":"bob"}`,
		`{"id":"` + bobID + `","user":"bob","supersedes":"../` + aliceID + `"}`,
		`{"id":"` + bobID + `","user":"bob","created":"x"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := acked("a")
		m := newMachine(t, policy.RequireAny, c)
		ready(t, m.box, aliceID, "alice")
		ready(t, m.box, bobID, "bob")
		targettest.Put(t, m.tg, target.Ready+"/"+bobID+"/"+metaFile, string(data), 0o600)
		s, err := Run(t.Context(), m.tg, &m.e, m.options())
		if err != nil && !errors.Is(err, errDamaged) {
			t.Fatal(err)
		}
		if want := 2; err != nil && (s.Delivered != 1 || len(c.got) != 1) || err == nil && s.Delivered != want {
			t.Errorf("%+v, %v, sent %q", s, err, c.got)
		}
	})
}
