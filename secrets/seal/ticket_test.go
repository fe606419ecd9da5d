// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seal_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const cardToken = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE"

var made = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func newTicket() seal.Ticket {
	return seal.Ticket{Created: made, Expires: made.Add(time.Hour), Users: []seal.TicketUser{
		{Name: "alice", Token: seal.HashToken(cardToken), Must: []string{"sha256:a"}, May: []string{"sha256:b"}},
		{Name: "bob", Token: seal.HashToken("other"), Must: []string{"sha256:a"}, May: []string{}},
	}}
}

func candidate(change func(*seal.Candidate)) seal.Candidate {
	c := seal.Candidate{
		User: "alice", Token: cardToken, ID: "id1", Generation: 1, Secret: "S1", InstanceID: "i-1",
		Readers: []string{"sha256:a"}, Stanzas: 1, HostKeys: []string{"SHA256:x", "SHA256:y"},
	}
	change(&c)
	return c
}

func TestTicketAccept(t *testing.T) {
	same := func(*seal.Candidate) {}
	compact := func(c *seal.Candidate) { c.Readers, c.Generation, c.HostKeys = nil, 0, []string{"SHA256:x"} }
	keyless := func(c *seal.Candidate) { compact(c); c.HostKeys = nil }
	beside := func(c *seal.Candidate) { c.HostKeys = []string{"SHA256:x", "SHA256:z"} }
	later := func(c *seal.Candidate) { c.ID, c.Secret, c.Generation, c.Supersedes = "id2", "S2", 2, "id1" }
	type step struct {
		change func(*seal.Candidate)
		after  time.Duration
		want   seal.Verdict
		err    error
	}
	first, again := seal.Verdict{Standing: seal.First}, seal.Verdict{Standing: seal.Again}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"the same again, for ever", []step{{same, 0, first, nil}, {same, 0, again, nil}, {same, 1000 * time.Hour, again, nil}}},
		{"too late", []step{{same, 2 * time.Hour, seal.Verdict{}, seal.ErrTicketExpired}}},
		{"unknown user", []step{{func(c *seal.Candidate) { c.User = "carol" }, 0, seal.Verdict{}, seal.ErrNotExpected}}},
		{"no token", []step{{func(c *seal.Candidate) { c.Token = "" }, 0, seal.Verdict{}, seal.ErrForged}}},
		{"another user's token", []step{{func(c *seal.Candidate) { c.User = "bob" }, 0, seal.Verdict{}, seal.ErrForged}}},
		{"who may read", []step{{func(c *seal.Candidate) { c.Readers, c.Stanzas = []string{"sha256:b", "sha256:a"}, 2 }, 0, first, nil}}},
		{"who may not", []step{{func(c *seal.Candidate) { c.Readers, c.Stanzas = []string{"sha256:a", "sha256:c"}, 2 }, 0, seal.Verdict{}, seal.ErrReaders}}},
		{"who must", []step{{func(c *seal.Candidate) { c.Readers = []string{"sha256:b"} }, 0, seal.Verdict{}, seal.ErrMissingReaders}}},
		{"one more than it says", []step{{func(c *seal.Candidate) { c.Stanzas = 2 }, 0, seal.Verdict{}, seal.ErrReaders}}},
		{"compact", []step{{func(c *seal.Candidate) { c.Readers, c.Stanzas, c.Generation = nil, 2, 0 }, 0, first, nil}, {same, 0, again, nil},
			{func(c *seal.Candidate) { c.Readers, c.Generation, c.Secret = nil, 0, "S9" }, 0, seal.Verdict{}, seal.ErrSecondCard}}},
		{"compact, too many readers", []step{{func(c *seal.Candidate) { c.Readers, c.Stanzas = nil, 3 }, 0, seal.Verdict{}, seal.ErrReaders}}},
		{"second card", []step{{same, 0, first, nil}, {func(c *seal.Candidate) { c.ID = "id9" }, 0, seal.Verdict{}, seal.ErrSecondCard}}},
		{"second secret under the same ID", []step{{same, 0, first, nil}, {func(c *seal.Candidate) { c.Secret = "S9" }, 0, seal.Verdict{}, seal.ErrSecondCard}}},
		{"second card after a compact one", []step{{func(c *seal.Candidate) { c.Readers, c.Generation = nil, 0 }, 0, first, nil}, {func(c *seal.Candidate) { c.ID = "id9" }, 0, seal.Verdict{}, seal.ErrSecondCard}}},
		{"a reset", []step{{same, 0, first, nil}, {later, 0, seal.Verdict{Standing: seal.Later}, nil}, {later, 0, again, nil}, {same, 0, seal.Verdict{}, seal.ErrOlderGeneration},
			{func(c *seal.Candidate) { c.ID = "id8" }, 0, seal.Verdict{}, seal.ErrOlderGeneration},
			{func(c *seal.Candidate) { later(c); c.ID = "id7" }, 0, seal.Verdict{}, seal.ErrSecondCard}}},
		{"a reset after the ticket", []step{{same, 0, first, nil}, {later, 5000 * time.Hour, seal.Verdict{Standing: seal.Later}, nil}}},
		{"a reset of which one before was missed", []step{{same, 0, first, nil},
			{func(c *seal.Candidate) { later(c); c.Generation, c.Supersedes = 4, "id3" }, 0, seal.Verdict{Standing: seal.Later, Gap: true}, nil}}},
		{"a reset with new host keys", []step{{same, 0, first, nil},
			{func(c *seal.Candidate) { later(c); c.HostKeys = []string{"SHA256:z"} }, 0, seal.Verdict{Standing: seal.Later, NewKeys: true}, nil}}},
		{"a reset with new host keys after the ticket", []step{{same, 0, first, nil},
			{func(c *seal.Candidate) { later(c); c.HostKeys = []string{"SHA256:z"} }, 2 * time.Hour, seal.Verdict{}, seal.ErrOtherHostKey}}},
		{"a reset with a host key beside the known ones", []step{{same, 0, first, nil},
			{func(c *seal.Candidate) { later(c); c.HostKeys = []string{"SHA256:x", "SHA256:z"} }, 0, seal.Verdict{Standing: seal.Later, NewKeys: true}, nil}}},
		{"a reset with a host key beside the known ones after the ticket", []step{{same, 0, first, nil},
			{func(c *seal.Candidate) { later(c); c.HostKeys = []string{"SHA256:x", "SHA256:z"} }, 2 * time.Hour, seal.Verdict{}, seal.ErrOtherHostKey}}},
		{"a reset without host keys after the ticket", []step{{same, 0, first, nil},
			{func(c *seal.Candidate) { later(c); c.HostKeys = nil }, 2 * time.Hour, seal.Verdict{}, seal.ErrOtherHostKey}}},
		{"the same secret with another host key", []step{{same, 0, first, nil},
			{func(c *seal.Candidate) { c.HostKeys = []string{"SHA256:x", "SHA256:z"} }, 0, seal.Verdict{}, seal.ErrSecondCard}}},
		{"compact, and its whole form with another host key", []step{{func(c *seal.Candidate) { c.Readers, c.Generation, c.HostKeys = nil, 0, []string{"SHA256:x"} }, 0, first, nil},
			{same, 0, again, nil}, {func(c *seal.Candidate) { c.HostKeys = []string{"SHA256:z"} }, 0, seal.Verdict{}, seal.ErrSecondCard},
			{later, 5000 * time.Hour, seal.Verdict{Standing: seal.Later}, nil}}},
		{"compact, and its whole form, twice with different keys beside the known one", []step{{compact, 0, first, nil}, {same, 0, again, nil},
			{beside, 0, seal.Verdict{}, seal.ErrSecondCard}, {compact, 0, again, nil}, {same, 0, again, nil},
			{func(c *seal.Candidate) { later(c); c.HostKeys = []string{"SHA256:x", "SHA256:z"} }, 2 * time.Hour, seal.Verdict{}, seal.ErrOtherHostKey},
			{later, 2 * time.Hour, seal.Verdict{Standing: seal.Later}, nil}}},
		{"compact without a host key, and its whole form", []step{{keyless, 0, first, nil}, {keyless, 0, again, nil}, {same, 0, again, nil}, {beside, 0, seal.Verdict{}, seal.ErrSecondCard}}},
		{"compact without a host key, and its whole form after the ticket", []step{{keyless, 0, first, nil}, {same, 2 * time.Hour, seal.Verdict{}, seal.ErrOtherHostKey},
			{later, 2 * time.Hour, seal.Verdict{}, seal.ErrOtherHostKey}, {later, 0, seal.Verdict{Standing: seal.Later, NewKeys: true}, nil}}},
		{"a reset is the first to be seen", []step{{later, 0, first, nil}, {same, 0, seal.Verdict{}, seal.ErrOlderGeneration}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ticket := newTicket()
			for i, s := range tt.steps {
				v, next, err := ticket.Accept(candidate(s.change), made.Add(s.after))
				if !errors.Is(err, s.err) || (err == nil) != (s.err == nil) || v != s.want {
					t.Fatalf("step %d: got %+v, %v, want %+v, %v", i, v, err, s.want, s.err)
				}
				// What is remembered survives the file.
				text, err := next.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				for _, secret := range []string{cardToken, "S1", "S2", "S9"} {
					if strings.Contains(string(text), `"`+secret+`"`) {
						t.Errorf("step %d: %q is in the ticket", i, secret)
					}
				}
				if ticket, err = seal.ParseTicket(text); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestParseTicket(t *testing.T) {
	text, err := newTicket().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := seal.ParseTicket(text)
	if err != nil {
		t.Fatal(err)
	}
	want := newTicket()
	want.V, want.Type = 1, "totp-ticket"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for name, bad := range map[string]string{
		"empty": "", "a list": "[]", "another object": `{"v":1}`, "a later version": strings.Replace(string(text), `"v": 1`, `"v": 2`, 1),
		"a cut hash": strings.Replace(string(text), seal.HashToken(cardToken), "sha256:ab", 1), "a cut file": string(text[:len(text)-9]),
	} {
		if _, err := seal.ParseTicket([]byte(bad)); !errors.Is(err, seal.ErrNoTicket) {
			t.Errorf("%s: got %v, want ErrNoTicket", name, err)
		}
	}
}

// FuzzParseTicket: whatever is read as a ticket can be used as one.
func FuzzParseTicket(f *testing.F) {
	text, _ := newTicket().Marshal()
	f.Add(text)
	f.Add([]byte(`{"v":1,"type":"totp-ticket","users":[{"name":"alice","accepted":[{}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ticket, err := seal.ParseTicket(data)
		if err != nil {
			return
		}
		ticket.Accept(candidate(func(*seal.Candidate) {}), made)
	})
}
