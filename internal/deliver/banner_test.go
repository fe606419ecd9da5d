// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// sealedTo returns a binary age file of n bytes.
func sealedTo(t testing.TB, n int, to ...age.Recipient) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	must(t, err)
	w.Write(make([]byte, n))
	must(t, w.Close())
	return b.Bytes()
}

func hybrid(t testing.TB) age.Recipient {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	must(t, err)
	return id.Recipient()
}

func newBanner(t *testing.T, own string) (banner, *Outbox, *target.Target) {
	box, tg := newOutbox(t)
	must(t, tg.Mkdir(target.RunDir, 0o755))
	must(t, tg.Mkdir(target.BannerDir, 0o755))
	must(t, box.ComposeBanner([]byte(own)))
	return banner{t: tg}, box, tg
}

// text is what sshd shows, and how many envelopes are in it.
func text(t *testing.T, tg *target.Target) (string, int) {
	t.Helper()
	b, err := tg.ReadFile(target.Banner)
	if errors.Is(err, fs.ErrNotExist) {
		return "", 0
	}
	must(t, err)
	fi, err := tg.Stat(target.Banner)
	must(t, err)
	if fi.Mode().Perm() != 0o644 || len(b) > MaxBanner || len(b) == 0 {
		t.Errorf("mode %v, %d bytes", fi.Mode(), len(b))
	}
	return string(b), strings.Count(string(b), "-----BEGIN AGE ENCRYPTED FILE-----\n")
}

func TestBanner(t *testing.T) {
	b, _, tg := newBanner(t, "")
	if s, _ := text(t, tg); s != "" {
		t.Errorf("shows %q without an envelope", s)
	}
	to := hybrid(t)
	alice := Item{Meta: meta(aliceID, "alice"), Sealed: sealedTo(t, 500, to)}
	bob := Item{Meta: meta(bobID, "bob"), Sealed: sealedTo(t, 600, to)}
	must(t, b.Send(t.Context(), alice))
	must(t, b.Send(t.Context(), alice))
	s, n := text(t, tg)
	if _, from, _ := strings.Cut(s, "\n\n"); n != 1 || strings.Contains(s, "alice") || from != "" {
		t.Errorf("%d envelopes: %s", n, s)
	}
	if got, err := seal.Dearmor([]byte(s)); err != nil || !bytes.Equal(got, alice.Sealed) {
		t.Errorf("another envelope: %v", err)
	}
	for line := range strings.Lines(s) {
		if len(line) > 79 || strings.ContainsFunc(line, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
			t.Errorf("line %q", line)
		}
	}
	must(t, b.Send(t.Context(), bob))
	if s, n := text(t, tg); n != 2 || strings.Count(s, "totpctl fetch") != 1 {
		t.Errorf("%d envelopes: %s", n, s)
	}
	if !b.Shows(alice.Meta) || b.Shows(meta("c"+aliceID[1:], "carol")) {
		t.Error("does not know what it shows")
	}
	must(t, b.Withdraw(alice.Meta))
	must(t, b.Withdraw(alice.Meta))
	s, n = text(t, tg)
	if got, err := seal.Dearmor([]byte(s)); n != 1 || err != nil || !bytes.Equal(got, bob.Sealed) || b.Shows(alice.Meta) {
		t.Errorf("%d envelopes, %v", n, err)
	}
	must(t, b.Withdraw(bob.Meta))
	if s, _ := text(t, tg); s != "" {
		t.Errorf("left %q", s)
	}
}

// TestWays: an envelope of a classic recipient cannot leave by the banner, except where the
// policy says so, and a card without a compact form not by a channel with little room.
func TestWays(t *testing.T) {
	box, _ := newOutbox(t)
	classic, pq := realEnvelope(t), sealedTo(t, 500, hybrid(t))
	channel := func(kind string) policy.Channel { return policy.Channel{Type: kind} }
	anyone := policy.Channel{Type: policy.ChannelSSHBanner, Recipients: policy.BannerAny}
	for name, tt := range map[string]struct {
		to      []policy.Channel
		sealed  []byte
		compact []byte
		open    []string
		refused error
	}{
		"classic, banner":          {[]policy.Channel{channel(policy.ChannelSSHBanner)}, classic, nil, nil, errClassic},
		"classic, banner and file": {[]policy.Channel{channel(policy.ChannelSSHBanner), channel(policy.ChannelFile)}, classic, nil, []string{"file"}, errClassic},
		"classic, banner for any":  {[]policy.Channel{anyone}, classic, nil, []string{"ssh-banner"}, nil},
		"mixed, banner":            {[]policy.Channel{channel(policy.ChannelSSHBanner)}, []byte("age-encryption.org/v1\n-> mlkem768x25519 a\n-> X25519 b\n---"), nil, nil, errClassic},
		"post-quantum, banner":     {[]policy.Channel{channel(policy.ChannelSSHBanner)}, pq, nil, []string{"ssh-banner"}, nil},
		"no compact form":          {[]policy.Channel{channel(policy.ChannelOpenStack)}, pq, nil, nil, nil},
		"compact form":             {[]policy.Channel{channel(policy.ChannelOpenStack)}, classic, classic, []string{"openstack"}, nil},
	} {
		e := &policy.Effective{Policy: policy.Policy{Channels: tt.to}}
		w, err := box.Ways(e, Item{Meta: meta(aliceID, "alice"), Sealed: tt.sealed, Compact: tt.compact})
		if err != nil || !slices.Equal(w.Open, tt.open) || w.Spent != nil || !errors.Is(errors.Join(w.Refused...), tt.refused) {
			t.Errorf("%s: %+v, %v; want open %q, refused %v", name, w, err, tt.open, tt.refused)
		}
	}
}

// What sshd would show otherwise, and the agent's notice, stand ahead of the
// envelopes, and remain after them.
func TestBannerBesideOthers(t *testing.T) {
	b, box, tg := newBanner(t, "Welcome.\nDo not enter.")
	const own = "Welcome.\nDo not enter.\n"
	if s, _ := text(t, tg); s != own {
		t.Errorf("shows %q", s)
	}
	alice := Item{Meta: meta(aliceID, "alice"), Sealed: sealedTo(t, 500, hybrid(t))}
	must(t, b.Send(t.Context(), alice))
	if s, n := text(t, tg); n != 1 || !strings.HasPrefix(s, own+"\n") {
		t.Errorf("shows %q", s)
	}
	targettest.Put(t, tg, target.Notice, "Nobody can log in.\n", 0o644)
	ready(t, box, aliceID, "alice")
	must(t, box.ComposeBanner([]byte("New.\n")))
	if s, n := text(t, tg); n != 1 || !strings.HasPrefix(s, "New.\nNobody can log in.\n\n") {
		t.Errorf("shows %q", s)
	}
	must(t, tg.Remove(target.Notice))
	must(t, b.Withdraw(alice.Meta))
	if s, _ := text(t, tg); s != "New.\n" {
		t.Errorf("shows %q", s)
	}
	must(t, box.ComposeBanner(bytes.Repeat([]byte("a line of its own\n"), 4000)))
	if s, _ := text(t, tg); len(s) > maxOwnBanner || !strings.HasSuffix(s, "own\n") {
		t.Errorf("shows %d bytes", len(s))
	}
}

// Envelopes that are no longer in the outbox go.
func TestBannerForgets(t *testing.T) {
	b, box, tg := newBanner(t, "")
	ready(t, box, bobID, "bob")
	to := hybrid(t)
	must(t, b.Send(t.Context(), Item{Meta: meta(aliceID, "alice"), Sealed: sealedTo(t, 500, to)}))
	must(t, b.Send(t.Context(), Item{Meta: meta(bobID, "bob"), Sealed: sealedTo(t, 500, to)}))
	must(t, box.ComposeBanner(nil))
	if _, n := text(t, tg); n != 1 || b.Shows(meta(aliceID, "alice")) || !b.Shows(meta(bobID, "bob")) {
		t.Errorf("%d envelopes", n)
	}
}

func TestBannerFaults(t *testing.T) {
	classic, err := age.GenerateX25519Identity()
	must(t, err)
	for name, tt := range map[string]struct {
		sealed []byte
		any    bool
		break_ func(*testing.T, banner)
		want   error
		sure   bool // the other end certainly has not got it
	}{
		"classic":          {sealed: sealedTo(t, 500, classic.Recipient()), want: errClassic, sure: true},
		"classic, allowed": {sealed: sealedTo(t, 500, classic.Recipient()), any: true},
		"no envelope":      {sealed: []byte("the plain text"), want: errClassic, sure: true},
		"no envelope, any": {sealed: []byte("the plain text"), any: true, want: seal.ErrNoEnvelope, sure: true},
		"not told":         {sealed: sealedTo(t, 500, hybrid(t)), break_: func(t *testing.T, b banner) { must(t, b.t.RemoveAll(target.BannerDir)) }, want: errNoBanner, sure: true},
		"too large":        {sealed: sealedTo(t, 30000, hybrid(t)), want: errNoRoom, sure: true},
		"locked": {sealed: sealedTo(t, 500, hybrid(t)), break_: func(t *testing.T, b banner) {
			unlock, err := b.t.LockFile(target.BannerLock)
			must(t, err)
			t.Cleanup(unlock)
		}, want: errBannerHas, sure: true},
		"the text cannot be written": {sealed: sealedTo(t, 500, hybrid(t)), break_: func(t *testing.T, b banner) {
			targettest.Put(t, b.t, path.Join(target.Banner, "in the way"), "", 0o600)
		}, want: target.ErrNotRegular},
	} {
		t.Run(name, func(t *testing.T) {
			b, _, tg := newBanner(t, "")
			b.any = tt.any
			if tt.break_ != nil {
				tt.break_(t, b)
			}
			patience := time.Minute // for what is written durably, on a busy machine
			if name == "locked" {
				patience = time.Second
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			err := b.Send(ctx, Item{Meta: meta(aliceID, "alice"), Sealed: tt.sealed})
			if !errors.Is(err, tt.want) || err != nil && maySent(err) == tt.sure {
				t.Errorf("got %v, may be sent: %v", err, maySent(err))
			}
			if err != nil && tt.sure {
				if b.Shows(meta(aliceID, "alice")) {
					t.Error("is there all the same")
				}
				if _, n := text(t, tg); n != 0 {
					t.Errorf("%d envelopes shown", n)
				}
			}
		})
	}
}

// Of several envelopes as many are shown as there is room for; the others come
// when those are gone.
func TestBannerBounded(t *testing.T) {
	b, _, tg := newBanner(t, strings.Repeat("a line of its own\n", 100))
	to := hybrid(t)
	var sent []Meta
	var last Item
	for i := range 10 {
		last = Item{Meta: meta(string("abcdefghij"[i])+aliceID[1:], "alice"), Sealed: sealedTo(t, 6700, to)}
		err := b.Send(t.Context(), last)
		if errors.Is(err, errNoRoom) {
			break
		}
		must(t, err)
		sent = append(sent, last.Meta)
	}
	if _, n := text(t, tg); n != len(sent) || n < 2 || n > 3 {
		t.Errorf("%d of %d envelopes", n, len(sent))
	}
	must(t, b.Withdraw(sent[0]))
	must(t, b.Send(t.Context(), last))
	if _, n := text(t, tg); n != len(sent) || !b.Shows(last.Meta) {
		t.Errorf("%d envelopes", n)
	}
}

// A boot takes what was shown; the receipts tell what to show again. A login
// takes it for good.
func TestShowAgainAndHide(t *testing.T) {
	b, box, tg := newBanner(t, "")
	e := &policy.Effective{Policy: policy.Policy{Require: policy.RequireAny, Channels: []policy.Channel{{Type: policy.ChannelFile}, {Type: policy.ChannelSSHBanner}}}}
	must(t, box.Stage(meta(aliceID, "alice"), sealedTo(t, 500, hybrid(t)), nil))
	must(t, box.Promote(aliceID))
	m := meta(aliceID, "alice")

	must(t, box.ShowAgain(t.Context(), e, m)) // not yet offered
	if b.Shows(m) {
		t.Error("shown without a receipt")
	}
	s, err := Run(t.Context(), tg, e, Options{})
	if err != nil || s.Offered != 1 || !b.Shows(m) {
		t.Fatalf("%+v, %v", s, err)
	}
	must(t, tg.RemoveAll(target.BannerDir))
	must(t, tg.Mkdir(target.BannerDir, 0o755))
	must(t, box.ComposeBanner(nil))
	if _, n := text(t, tg); n != 0 {
		t.Error("the boot took nothing")
	}
	must(t, box.ShowAgain(t.Context(), e, m))
	if _, n := text(t, tg); n != 1 {
		t.Errorf("%d envelopes", n)
	}
	must(t, box.Hide(e, m))
	if _, n := text(t, tg); n != 0 || !tg.Exists(path.Join(target.Envelopes, "alice."+aliceID+".age")) {
		t.Errorf("%d envelopes; the file's: %v", n, tg.Exists(target.Envelopes))
	}
	must(t, box.ShowAgain(t.Context(), e, m))
	if b.Shows(m) {
		t.Error("shown after the login")
	}
	must(t, tg.Remove(path.Join(target.Ready, aliceID, usedFile)))
	must(t, box.ShowAgain(t.Context(), e, m))
	must(t, box.Retire(e, m))
	if b.Shows(m) {
		t.Error("retired, and shown")
	}
}

// A login takes an envelope off the banner for good, also if the banner has not had
// it yet, while another channel is still to take it.
func TestHiddenForGood(t *testing.T) {
	b, box, tg := newBanner(t, "")
	m := &machine{T: t, tg: tg, box: box, clock: epoch}
	m.e.Require = policy.RequireAny
	panel := acked("panel")
	panel.err = errors.New("no")
	o := m.options()
	o.routes = []route{{Channel: panel, deadline: time.Minute}, {Channel: b, deadline: time.Minute}}
	pass := func(again bool) {
		t.Helper()
		o.Again = again
		if s, err := Run(t.Context(), tg, &m.e, o); err != nil || s.Pending != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		m.clock = m.clock.Add(2 * longestPause)
	}
	e := &policy.Effective{Policy: policy.Policy{Channels: []policy.Channel{{Type: policy.ChannelSSHBanner}}}}
	alice, big := meta(aliceID, "alice"), Item{Meta: meta(bobID, "bob"), Sealed: sealedTo(t, 20000, hybrid(t))}
	must(t, b.Send(t.Context(), big))
	must(t, box.Stage(alice, sealedTo(t, 6000, hybrid(t)), nil))
	must(t, box.Promote(aliceID))
	pass(false)
	if a := m.attempt(aliceID, b.Name()); a.State != Failed || b.Shows(alice) {
		t.Fatalf("%+v: there was to be no room", a)
	}
	must(t, b.Withdraw(big.Meta))

	// The login is noticed in the middle of a pass, ahead of the banner's turn.
	panel.check = func(Item) { must(t, box.Hide(e, alice)) }
	pass(false)
	panel.check = nil
	tries := m.attempt(aliceID, b.Name()).Tries
	for _, again := range []bool{false, true} {
		pass(again)
		if a := m.attempt(aliceID, b.Name()); b.Shows(alice) || a.Tries != tries || a.State != Failed {
			t.Errorf("again %v: shown %v, %+v", again, b.Shows(alice), a)
		}
	}
	if _, n := text(t, tg); n != 0 {
		t.Errorf("%d envelopes shown", n)
	}
	// What it can do no more is no reason to keep the envelope.
	r, err := box.Receipts(aliceID)
	must(t, err)
	if got := r.state(o.routes[1:], policy.RequireAll); got != Offered {
		t.Errorf("with the banner alone: %s", got)
	}
}

// An envelope that is withdrawn while it is on its way is not left in the banner.
func TestWithdrawnOnItsWay(t *testing.T) {
	b, box, tg := newBanner(t, "")
	m := &machine{T: t, tg: tg, box: box, clock: epoch}
	must(t, box.Stage(meta(aliceID, "alice"), sealedTo(t, 500, hybrid(t)), nil))
	must(t, box.Promote(aliceID))
	first := offered("first")
	first.check = func(Item) { must(t, box.retire([]route{{Channel: b}}, meta(aliceID, "alice"))) }
	o := m.options()
	o.routes = []route{{Channel: first, deadline: time.Minute}, {Channel: b, deadline: time.Minute}}
	if s, err := Run(t.Context(), tg, &m.e, o); err != nil || s.Envelopes != 0 || b.Shows(meta(aliceID, "alice")) {
		t.Errorf("%+v, %v; shown %v", s, err, b.Shows(meta(aliceID, "alice")))
	}
}
