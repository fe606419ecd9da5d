// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// user brings one person to the state of being enrolled: it finishes or
// undoes what an interrupted run left, and enrolls where nothing stands.
func (r *run) user(p person, u *UserStatus) error {
	state, err := readState(r.t, p.name)
	switch {
	case err == nil:
		live, err := r.recover(state)
		if err != nil {
			return err
		}
		if live {
			u.Enrolled, u.ID, u.Generation, u.Used = true, state.Mark.ID, state.Mark.Generation, state.Used
			return nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		// The PAM module denies a file that it cannot read, so the user is
		// locked out: a new enrollment is the way back.
		fmt.Fprintf(r.Log, "enroll: %s: %v; enrolling anew\n", p.name, err)
	}
	if p.err != nil {
		return p.err
	}
	e, err := r.enroll(p, state.Mark)
	if err != nil {
		return err
	}
	u.Enrolled, u.ID, u.Generation, u.fresh = true, e.ID, e.Generation, true
	return nil
}

// recover finishes an enrollment that was interrupted after its commit. It
// reports whether the state file stands for an enrollment whose envelope
// exists or was received. What was staged and never committed is discarded
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
	case r.ready[id]:
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

// enroll makes a new enrollment that takes the place of the one marked old.
func (r *run) enroll(p person, old otp.Mark) (deliver.Meta, error) {
	m, err := r.stage(p, old)
	if err != nil {
		return m.Meta, err
	}
	atStep("staged")
	if err := r.t.WriteFile(stateFile(p.name), m.state, 0o400); err != nil {
		return m.Meta, errors.Join(err, r.abandon(p.name, m.ID))
	}
	atStep("committed")
	if err := r.outbox.Promote(m.ID); err != nil {
		return m.Meta, err
	}
	atStep("promoted")
	return m.Meta, nil
}

// A made enrollment is staged and waits for its commit.
type made struct {
	deliver.Meta
	state  []byte // the PAM state file's text
	sealed []byte
}

// stage makes secret, card and envelope, and puts the envelope into the
// outbox where nothing delivers it yet.
func (r *run) stage(p person, old otp.Mark) (made, error) {
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
	text, err := r.card(m.Meta, p, secret).Text()
	if err != nil {
		return m, err
	}
	if m.sealed, err = seal.Seal(text, p.readers); err != nil {
		return m, err
	}
	m.state, err = otp.State{
		Secret: secret.Secret, RateLimit: rateLimit(r.policy.RateLimit), Window: 3, BackupCodes: secret.BackupCodes,
		Mark: otp.Mark{ID: id, Identity: r.here.Identity.String(), Generation: m.Generation},
	}.Format()
	if err != nil {
		return m, err
	}
	return m, r.outbox.Stage(m.Meta, m.sealed)
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
