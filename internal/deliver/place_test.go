// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// signed is a channel whose URL is good for one envelope.
func (p *panel) signed(name string) policy.Channel {
	c := p.c
	c.URL = "https://" + serverName + "/cards/" + name + "?sig=secretquery"
	c.Envelopes, c.User = policy.EnvelopesOne, "alice"
	return c
}

// passTo makes a pass by the policy's channels, which all lead to the panel, and says
// which URLs were asked for.
func (m *machine) passTo(p *panel, channels ...policy.Channel) (asked []string) {
	m.Helper()
	m.e.Channels, m.e.Jitter = channels, "0s"
	must(m, m.box.makeKey(channels))
	o := m.options()
	var err error
	o.routes, err = routes(channels, m.tg)
	must(m, err)
	for i := range o.routes {
		if w, ok := o.routes[i].Channel.(*web); ok {
			w.dial = p.dial
		}
	}
	before := len(p.requests())
	if _, err := Run(m.Context(), m.tg, &m.e, o); err != nil {
		m.Fatal(err)
	}
	m.clock = m.clock.Add(2 * longestPause)
	for _, r := range p.requests()[before:] {
		asked = append(asked, strings.TrimPrefix(r.uri, "/cards/"))
	}
	return asked
}

// A URL for one envelope is spent, and another of the same host is not, in whatever
// order the policy has them.
func TestPlaces(t *testing.T) {
	m := newMachine(t, policy.RequireAll)
	p := newPanelAt(t, m.tg)
	file := policy.Channel{Type: policy.ChannelFile}
	one, two, three := p.signed("1"), p.signed("2"), p.signed("1")
	three.URL += "&of=later" // signed anew
	expect := func(want []string, channels ...policy.Channel) {
		t.Helper()
		if got := m.passTo(p, append(channels, file)...); !slices.Equal(got, want) {
			t.Errorf("asked for %q, want %q", got, want)
		}
	}
	must(t, m.box.Stage(meta(aliceID, "alice"), realEnvelope(t), nil))
	must(t, m.box.Promote(aliceID))
	expect([]string{"1?sig=secretquery"}, one)
	expect(nil, one)
	expect([]string{"2?sig=secretquery"}, two, one)
	expect(nil, one, two)

	must(t, m.box.Withdraw(aliceID))
	must(t, m.box.Stage(meta(carolID, "alice"), realEnvelope(t), nil))
	must(t, m.box.Promote(carolID))
	expect(nil, two, one)
	w, err := m.box.Ways(&m.e, Item{Meta: meta(bobID, "alice")})
	spent := w.Spent
	if err != nil || !slices.Equal(w.Open, []string{"file"}) || len(spent) != 2 || spent[0] == spent[1] {
		t.Errorf("%+v, %v", w, err)
	}
	expect([]string{"1?sig=secretquery&of=later"}, three, two, one)
	w, err = m.box.Ways(&m.e, Item{Meta: meta(bobID, "alice")})
	if err != nil || !slices.Equal(w.Open, []string{"file"}) {
		t.Errorf("%+v, %v", w, err)
	}
	// The same place is spent for whomever it is said to be.
	one.User = "bob"
	must(t, m.box.Stage(meta(bobID, "bob"), realEnvelope(t), nil))
	must(t, m.box.Promote(bobID))
	expect(nil, one, two, three)

	b, err := m.tg.ReadFile(receiptFile(aliceID))
	must(t, err)
	if text := m.log.String() + strings.Join(spent, " ") + string(b); strings.Contains(text, "secret") || strings.Contains(text, "cards") {
		t.Errorf("a URL is in the log or in a name:\n%s", text)
	}
}

// What a URL for many envelopes has of credentials is no place of its own.
func TestPlacesOfMany(t *testing.T) {
	m := newMachine(t, policy.RequireAll)
	p := newPanelAt(t, m.tg)
	must(t, m.box.Stage(meta(aliceID, "alice"), realEnvelope(t), nil))
	must(t, m.box.Promote(aliceID))
	a, b := p.c, p.c
	a.URL, b.URL = "https://"+serverName+"/a/{id}?sig=secret1", "https://"+serverName+"/b/{id}"
	if got := m.passTo(p, a, b); len(got) != 2 {
		t.Errorf("asked for %q", got)
	}
	a.URL, b.URL = "https://"+serverName+"/a/{id}?sig=secret2", "https://secretuser:secretpw@"+serverName+"/b/{id}"
	if got := m.passTo(p, b, a); len(got) != 0 {
		t.Errorf("asked for %q", got)
	}
	// Unless that is all they differ by.
	b.URL = "https://" + serverName + "/a/{id}?sig=secret3"
	if got := m.passTo(p, a, b); len(got) != 1 {
		t.Errorf("asked for %q", got)
	}
}

// The name is the same as long as the receipts are there, and tells who guesses
// the URL nothing: another machine has another name for it.
func TestTag(t *testing.T) {
	var names []string
	for range 2 {
		m := newMachine(t, policy.RequireAll)
		p := newPanelAt(t, m.tg)
		channels := []policy.Channel{p.signed("1")}
		name := func() string {
			rs, err := routes(channels, m.tg)
			must(t, err)
			return rs[0].Name()
		}
		const plain = "http:" + serverName + " for alice"
		if got := name(); got != plain {
			t.Errorf("without a key: %q", got)
		}
		must(t, m.box.makeKey(channels))
		names = append(names, name())
		must(t, m.box.makeKey(channels))
		if got := name(); got != names[len(names)-1] || !strings.HasPrefix(got, plain+" #") {
			t.Errorf("name %q, then %q", names[len(names)-1], got)
		}
		fi, err := m.tg.Stat(keyFile)
		must(t, err)
		if fi.Mode().Perm() != 0o600 || path.Dir(keyFile) != target.Receipts {
			t.Errorf("the key has mode %v", fi.Mode())
		}
	}
	if names[0] == names[1] {
		t.Errorf("two machines have the name %q", names[0])
	}
}

// The receipts of older versions, which knew hosts alone.
func TestOldReceipts(t *testing.T) {
	m := newMachine(t, policy.RequireAll)
	p := newPanelAt(t, m.tg)
	must(t, m.box.Stage(meta(aliceID, "alice"), realEnvelope(t), nil))
	must(t, m.box.Promote(aliceID))
	one, two, file := p.signed("1"), p.signed("2"), policy.Channel{Type: policy.ChannelFile}
	const old = "http:" + serverName + " for alice"
	before := epoch.Add(-time.Hour)
	delivered := Attempt{State: Delivered, Tries: 1, Last: before}
	must(t, m.box.saveReceipt(Receipt{ID: aliceID, User: "alice", Channels: map[string]Attempt{old: delivered, old + " #2": {State: Failed, Tries: 3, Last: before}}}))
	m.e.Channels = []policy.Channel{one, two, file}
	r, err := m.box.Receipts(aliceID)
	must(t, err)
	m.e.Require = policy.RequireAny
	if got, err := m.box.Standing(&m.e, r); got != Delivered || err != nil {
		t.Errorf("before the first pass: %s, %v", got, err)
	}
	m.e.Require = policy.RequireAll
	// Sent where it has not been, and not where it has.
	if got := m.passTo(p, one, two, file); len(got) != 1 || !strings.HasPrefix(got[0], "2?") {
		t.Errorf("asked for %q", got)
	}
	if r, err = m.box.Receipts(aliceID); err != nil || len(r.Channels) != 3 || r.Channels[old].State != "" {
		t.Errorf("%+v, %v", r, err)
	}
	for name, a := range r.Channels {
		if place(name) != name && a.Tries != map[bool]int{true: 1, false: 4}[a.Last.Equal(before)] {
			t.Errorf("%s: %+v", name, a)
		}
	}
	// Spent, for the envelope of a reset; a URL that comes later is not.
	must(t, m.box.Withdraw(aliceID))
	must(t, m.box.Stage(meta(carolID, "alice"), realEnvelope(t), nil))
	must(t, m.box.Promote(carolID))
	if got := m.passTo(p, two, one, file); len(got) != 0 {
		t.Errorf("asked for %q", got)
	}
	if got := m.passTo(p, p.signed("3"), file); len(got) != 1 {
		t.Errorf("asked for %q", got)
	}
}

// A place of OpenStack's is the instance's, whoever the channel is for.
func TestPlaceOfOpenStack(t *testing.T) {
	if got := place("openstack for alice"); got != place("openstack") {
		t.Errorf("place %q", got)
	}
}
