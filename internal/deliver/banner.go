// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func init() {
	Register(Driver{
		Type:     policy.ChannelSSHBanner,
		Deadline: 10 * time.Second,
		Check:    func(policy.Channel) error { return nil },
		New: func(c policy.Channel, t *target.Target) Channel {
			return banner{t, c.Recipients == policy.BannerAny}
		},
	})
}

var (
	errClassic   = errors.New("sealed to a classic recipient, and every client can read the banner; use a post-quantum recipient (age1pq1...), or set recipients: any beside type: ssh-banner")
	errNoRoom    = errors.New("there is no room for another card in the banner; it is tried again, when those there are fetched")
	errNoBanner  = errors.New("sshd is not told to show it; totp-agent enroll, at each boot, does that")
	errUsed      = errors.New("its user has logged in with a code, so that it is shown no more")
	errBannerHas = errors.New("another run is at work on the banner")
)

// banner shows armored envelopes to everybody who connects to sshd, before any
// login: RFC 4252, section 5.4. They are in files of one directory under /run, and
// sshd shows one text that is made of them: it opens that at each connection. The
// agent has made the directory and told sshd of the text before sshd started.
type banner struct {
	t   *target.Target
	any bool // envelopes of classic recipients too
}

func (banner) Name() string { return policy.ChannelSSHBanner }

func (banner) Acknowledged() bool { return false }

func (b banner) Send(ctx context.Context, item Item) error {
	if err := b.Refuses(item.Sealed); err != nil {
		return Unsent(err)
	}
	text, err := armored(item)
	if err != nil {
		return Unsent(err)
	}
	if !b.t.IsDir(target.BannerDir) {
		return Unsent(errNoBanner)
	}
	unlock, err := b.lock(ctx)
	if err != nil {
		return Unsent(err)
	}
	defer unlock()
	if b.t.Exists(usedMark(item.ID)) {
		return Unsent(errUsed) // since this pass began
	}
	file := bannerFile(item.Meta)
	old, err := b.t.ReadFile(file)
	if err == nil && bytes.Equal(old, text) {
		return compose(b.t)
	}
	if err := b.t.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	if whole, err := assemble(b.t); err != nil || len(whole) > MaxBanner {
		if err == nil {
			err = Unsent(errNoRoom)
		}
		return errors.Join(err, b.t.Remove(file))
	}
	return compose(b.t)
}

// Refuses returns an error for an envelope of a classic recipient.
func (b banner) Refuses(sealed []byte) error {
	if b.any || postQuantum(sealed) {
		return nil
	}
	return errClassic
}

// Withdraw takes an envelope out of the banner.
func (b banner) Withdraw(m Meta) error {
	if !b.Shows(m) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.t.Remove(bannerFile(m)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return compose(b.t)
}

// Shows tells whether the envelope is in the banner.
func (b banner) Shows(m Meta) bool { return b.t.Exists(bannerFile(m)) }

// lock waits for another process, which takes a moment.
func (b banner) lock(ctx context.Context) (unlock func(), err error) {
	for {
		unlock, err = b.t.LockFile(target.BannerLock)
		if !errors.Is(err, target.ErrLocked) {
			return unlock, err
		}
		if ctx.Err() != nil {
			return nil, errBannerHas
		}
		pauseFor(ctx, 10*time.Millisecond)
	}
}

const bannerSuffix = ".age"

func bannerFile(m Meta) string { return path.Join(target.BannerDir, m.ID+bannerSuffix) }

// MaxBanner is the size in bytes of the largest banner. RFC 4253, section 6.1,
// has clients take packets of 35000 bytes, and PuTTY takes few more.
const MaxBanner = 34 << 10

// maxOwnBanner is how much of it is left to what sshd would show otherwise.
const maxOwnBanner = 8 << 10

// bannerIntro has lines short enough for a window of 80 columns, in which PuTTY
// puts two characters ahead of each.
const bannerIntro = "\nCards for owners of accounts on this server follow, sealed to each one's key.\n" +
	"To open yours, run \"totpctl fetch\", or paste all of this into totpctl's page.\n"

// ComposeBanner makes the text that sshd shows: own, which is what it would show
// otherwise, the agent's notice if there is one, and the envelopes that it had and
// that are ready still. The directory is there.
func (o *Outbox) ComposeBanner(own []byte) error {
	t := o.t
	if len(own) > maxOwnBanner {
		own = own[:maxOwnBanner]
		own = own[:bytes.LastIndexByte(own, '\n')+1]
	}
	b := banner{t: t}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	unlock, err := b.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	ready, err := o.ids(target.Ready)
	if err != nil {
		return err
	}
	shown, err := shownIDs(t)
	if err != nil {
		return err
	}
	for _, id := range shown {
		if !ready[id] {
			if err := t.Remove(bannerFile(Meta{ID: id})); err != nil {
				return err
			}
		}
	}
	if err := t.WriteFile(target.BannerOwn, own, 0o600); err != nil {
		return err
	}
	return compose(t)
}

// shownIDs lists the envelopes that are in the banner.
func shownIDs(t *target.Target) ([]string, error) {
	entries, err := t.ReadDir(target.BannerDir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), bannerSuffix); ok && frame.CheckID(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// compose makes the text anew.
func compose(t *target.Target) error {
	text, err := assemble(t)
	if err != nil {
		return err
	}
	if len(text) == 0 {
		if err := t.Remove(target.Banner); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return t.WriteFile(target.Banner, text, 0o644)
}

// assemble returns what the text is to be: what sshd would show otherwise, the
// agent's notice, the envelopes.
func assemble(t *target.Target) ([]byte, error) {
	var text []byte
	for _, name := range []string{target.BannerOwn, target.Notice} {
		part, err := t.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		text = append(text, part...)
		if len(part) > 0 && part[len(part)-1] != '\n' {
			text = append(text, '\n')
		}
	}
	shown, err := shownIDs(t)
	if err != nil {
		return nil, err
	}
	intro := bannerIntro
	for _, id := range shown {
		part, err := t.ReadFile(bannerFile(Meta{ID: id}))
		if err != nil {
			return nil, err
		}
		text = append(append(text, intro...), part...)
		intro = ""
	}
	return text, nil
}

// postQuantum tells whether all recipients of a binary age file are
// post-quantum, as its header tells everybody: https://c2sp.org/age.
func postQuantum(sealed []byte) bool {
	header, err := age.ExtractHeader(bytes.NewReader(sealed))
	if err != nil {
		return false
	}
	stanzas := 0
	for line := range strings.Lines(string(header)) {
		rest, ok := strings.CutPrefix(line, "-> ")
		if !ok {
			continue
		}
		stanzas++
		switch kind, _, _ := strings.Cut(strings.TrimSpace(rest), " "); kind {
		case "mlkem768x25519", "mlkem768p256tag":
		default:
			return false
		}
	}
	return stanzas > 0
}

// A Display is a channel that shows envelopes to everybody, in a place that is
// empty after a boot.
type Display interface {
	Withdrawer

	// Shows tells whether the envelope is there.
	Shows(m Meta) bool
}

// displays calls f for each display of the policy.
func (o *Outbox) displays(e *policy.Effective, f func(name string, c Channel, d Display) error) error {
	rs, _ := routes(e.Channels, o.t) // one that cannot be used shows nothing
	var errs []error
	for _, r := range rs {
		d, ok := r.Channel.(Display)
		if !ok {
			continue
		}
		if err := f(r.Name(), r.Channel, d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// ShowAgain puts an envelope back that a display had, by its receipt, before the
// machine was booted.
func (o *Outbox) ShowAgain(ctx context.Context, e *policy.Effective, m Meta) error {
	r, err := o.Receipts(m.ID)
	if err != nil || r.used {
		return nil // delivery begins a new one
	}
	return o.displays(e, func(name string, c Channel, d Display) error {
		if !r.Has(name) || d.Shows(m) {
			return nil
		}
		sealed, err := o.Envelope(m.ID)
		if err != nil {
			return err
		}
		return c.Send(ctx, Item{Meta: m, Sealed: sealed})
	})
}

// Hide takes an envelope off the displays, for good: its user has logged in with a
// code, whether or not somebody else is still to get it. That is noted first, since a
// display that has not had room for it yet may be about to show it.
func (o *Outbox) Hide(e *policy.Effective, m Meta) error {
	var err error
	if !o.used(m.ID) {
		err = o.t.WriteFile(usedMark(m.ID), nil, 0o600)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // it has left the outbox
	}
	return errors.Join(err, o.displays(e, func(_ string, _ Channel, d Display) error { return d.Withdraw(m) }))
}
