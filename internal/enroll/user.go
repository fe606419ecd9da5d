// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// user looks how one person stands: it finishes or undoes what an interrupted
// run left, and where nothing stands makes an enrollment, which finish commits
// together with those of the others.
func (r *run) user(p person, u *UserStatus) (*made, error) {
	state, err := readState(r.t, p.name)
	switch {
	case err == nil && p.account != nil && accountReplaced(state.Mark, *p.account):
		fmt.Fprintf(r.Log, "enroll: %s: the account is not the one that was enrolled (uid or home directory differ); its old secret is removed\n", p.name)
		if p.err != nil {
			return nil, errors.Join(p.err, r.dropReplaced(p.name))
		}
	case err == nil:
		live, err := r.recover(state)
		if err != nil {
			return nil, err
		}
		if live {
			if state.Mark.ID != "" && p.account != nil {
				if err := r.recordAccount(p.name, state, *p.account); err != nil {
					return nil, err
				}
			}
			u.Enrolled, u.ID, u.Generation, u.Used = true, state.Mark.ID, state.Mark.Generation, state.Used
			return nil, nil
		}
	case target.IsFault(err):
		return nil, err
	case !errors.Is(err, fs.ErrNotExist):
		// The PAM module denies a file that it cannot read, so the user is
		// locked out: a new enrollment is the way back.
		fmt.Fprintf(r.Log, "enroll: %s: %v; enrolling anew\n", p.name, err)
	}
	if p.err != nil {
		return nil, p.err
	}
	m, errMake := r.make(p, state.Mark)
	if errMake != nil {
		return nil, errMake
	}
	if err := r.outbox.Write(m.Meta, m.sealed, m.compact); err != nil {
		return nil, err
	}
	m.replaces = !errors.Is(err, fs.ErrNotExist)
	m.sealed, m.compact = nil, nil // as many as there are users need not be in memory
	return &m, nil
}

// recover finishes an enrollment that was interrupted after its commit. It
// reports whether the state file stands for an enrollment that is in use, or
// whose envelope exists or was received. What was staged and never committed is discarded
// with the other leftovers.
func (r *run) recover(s otp.State) (live bool, err error) {
	id := s.Mark.ID
	if id == "" {
		// Not made by the agent, on the machine it was made on: somebody
		// enrolled this user by hand, which is theirs to decide.
		return true, nil
	}
	if err := r.readOutbox(); err != nil {
		return false, err
	}
	switch {
	case r.staged[id]:
		return true, r.outbox.Promote(id)
	case r.ready[id], s.Used:
		// Who has logged in with a code has the card, by whatever way.
		return true, nil
	}
	return r.outbox.HasReceipt(id)
}

// readOutbox notes, once a run, which envelopes earlier runs have left.
func (r *run) readOutbox() error {
	if r.staged != nil {
		return nil
	}
	staged, err := r.outbox.Staged()
	if err != nil {
		return err
	}
	ready, err := r.outbox.Ready()
	if err != nil {
		return err
	}
	r.staged, r.ready = ids(staged), ids(ready)
	return nil
}

func ids(metas []deliver.Meta) map[string]bool {
	set := map[string]bool{}
	for _, m := range metas {
		set[m.ID] = true
	}
	return set
}

// finish commits what was made. All envelopes, and all that will be in state
// files, are durable before the first state file takes its name, and all their
// names are before the first envelope is ready: the order of one enrollment, with
// one sync for each step of all.
//
// The errors of single users are in made; err is that of all. Either way live says of each
// what is true now: an enrollment whose state file has its name is live, and its envelope
// stays for the next run if it cannot be made ready now.
func (r *run) finish(ctx context.Context, ms []*made) (err error) {
	if len(ms) == 0 {
		return nil
	}
	files := make([]*target.Prepared, len(ms))
	for i, m := range ms {
		files[i], m.err = r.t.Prepare(stateFile(m.User), m.state, 0o400)
	}
	if err := r.outbox.Settle(target.PAMStateDir); err != nil {
		for _, f := range files {
			if f != nil {
				err = errors.Join(err, f.Discard())
			}
		}
		return err
	}
	atStep("staged")
	defer func() { err = errors.Join(err, r.discardDead(ms)) }()
	for i, m := range ms {
		if files[i] == nil {
			continue
		}
		m.err = files[i].Commit()
		m.live = m.err == nil
		atStep("written")
	}
	if err := r.t.SyncDir(target.PAMStateDir); err != nil {
		return err
	}
	// Once the new files are there, their enrollments are carried through.
	if err := r.outlast(context.WithoutCancel(ctx), ms); err != nil {
		return err
	}
	atStep("committed")
	var committed []string
	for _, m := range ms {
		if m.live && m.err == nil {
			committed = append(committed, m.ID)
		}
	}
	if err := r.outbox.Promote(committed...); err != nil {
		return err
	}
	atStep("promoted")
	if r.enrolled == nil {
		r.enrolled = map[string]string{}
	}
	for _, m := range ms {
		if m.ready = m.live && m.err == nil; m.ready {
			r.enrolled[m.User] = m.ID
		}
	}
	return nil
}

// discardDead removes the staged envelopes of enrollments that are not live.
func (r *run) discardDead(ms []*made) error {
	var errs []error
	for _, m := range ms {
		if !m.live {
			errs = append(errs, r.outbox.Discard(m.ID))
		}
	}
	return errors.Join(errs...)
}

// A made enrollment waits for its commit.
type made struct {
	deliver.Meta
	state   []byte // the PAM state file's text
	sealed  []byte
	compact []byte // sealed as well; nil if no channel wants it, or none could take it

	replaces bool  // there is a state file in whose place this one is put
	live     bool  // the state file has its name
	ready    bool  // the envelope is ready for delivery
	err      error // why one of both is not so
}

// make makes secret, card and envelope of an enrollment that takes the place
// of the one marked old. Nothing is written yet.
func (r *run) make(p person, old otp.Mark) (made, error) {
	var m made
	id, err := newID(r.Rand)
	if err != nil {
		return m, err
	}
	if err := r.readFacts(); err != nil {
		return m, err
	}
	secret, err := otp.New(otp.Params{
		Issuer:      r.policy.Issuer,
		Account:     p.name + "@" + r.facts.hostname,
		BackupCodes: r.policy.BackupCodes,
	}, r.Rand)
	if err != nil {
		return m, err
	}
	m.Meta = deliver.Meta{
		ID: id, User: p.name, Generation: old.Generation + 1, Supersedes: old.ID,
		InstanceID: r.here.instanceID, Hostname: r.facts.hostname, Created: r.Now().UTC().Truncate(1e9),
	}
	c := r.card(m.Meta, p, secret)
	text, err := c.Text()
	if err != nil {
		return m, err
	}
	if m.sealed, err = seal.Seal(text, p.readers); err != nil {
		return m, err
	}
	if m.compact, err = r.compact(c, p.readers); err != nil {
		return m, err
	}
	m.state, err = otp.State{
		Secret: secret.Secret, RateLimit: rateLimit(r.policy.RateLimit), Window: 3, BackupCodes: secret.BackupCodes,
		Mark: otp.Mark{ID: id, Identity: r.here.Identity.String(), Generation: m.Generation, Account: p.account.String()},
	}.Format()
	return m, err
}

// compact seals the card's compact form, with the host key's blob if there is room
// for it, where a channel has little room. It is nil if none wants it, or if its
// readers leave too little.
func (r *run) compact(c card.Card, readers []seal.Recipient) ([]byte, error) {
	if !r.policy.WantsCompact(c.User) {
		return nil, nil
	}
	for _, form := range []func(card.Card) ([]byte, error){card.Card.Compact, card.Card.ShortCompact} {
		text, err := form(c)
		if err != nil {
			return nil, err
		}
		sealed, err := seal.Seal(text, readers)
		if err != nil || base64.StdEncoding.EncodedLen(len(sealed)) <= policy.CompactRoom {
			return sealed, err
		}
	}
	return nil, nil
}

// newID returns the random name of an enrollment: 128 bits in lower case
// base32, so that it is a file name everywhere.
func newID(random io.Reader) (string, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(random, b); err != nil {
		return "", err
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)), nil
}
