// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

var (
	// ErrID is returned for an envelope ID of a wrong form. It is
	// [frame.ErrID].
	ErrID = frame.ErrID

	// ErrUser is returned for a user name of a wrong form. It is
	// [frame.ErrUser].
	ErrUser = frame.ErrUser

	// ErrEmpty is returned by [Outbox.Stage] for an envelope without content.
	ErrEmpty = errors.New("empty envelope")

	// ErrTooLarge is returned for an envelope that armored exceeds
	// [frame.MaxPayload].
	ErrTooLarge = errors.New("envelope too large")
)

// Meta describes an envelope. It holds no secret.
type Meta struct {
	// ID is the envelope's identifier: 26 lower-case base32 characters.
	ID string `json:"id"`

	// User is the login name whose card is sealed in the envelope.
	User string `json:"user"`

	// Generation counts a user's enrollments on this instance, from 1.
	Generation int `json:"generation"`

	// Supersedes is the ID of the enrollment that this one replaces, if any.
	Supersedes string `json:"supersedes,omitempty"`

	InstanceID string    `json:"instance_id,omitempty"`
	Hostname   string    `json:"hostname,omitempty"`
	Created    time.Time `json:"created"`
}

// Outbox holds the sealed envelopes of this machine, in two directories:
// staged, for enrollments that are not committed yet, and ready, for those
// that may be delivered. An envelope is one directory named by its ID, which
// appears and disappears by a rename: it is there as a whole or not at all.
//
// The methods that change the outbox are for a caller that holds the
// enrollment's lock. Those that read may be called at any time.
type Outbox struct {
	t       *target.Target
	ready   bool     // directories made, and swept
	written []string // IDs that wait for Settle
}

// OpenOutbox returns the outbox of t. It touches nothing.
func OpenOutbox(t *target.Target) *Outbox {
	return &Outbox{t: t}
}

// Stage stores an envelope, a binary age file, under staged, and beside it one of
// the card's compact form, if there is one. When it returns nil the envelope is
// durable.
func (o *Outbox) Stage(m Meta, envelope, compact []byte) error {
	if err := o.Write(m, envelope, compact); err != nil {
		return err
	}
	return o.Settle()
}

// Write is the first half of [Outbox.Stage]: the envelope is there for the
// next Settle, which stages all that were written with one sync.
func (o *Outbox) Write(m Meta, envelope, compact []byte) error {
	if err := m.valid(); err != nil {
		return err
	}
	if len(envelope) == 0 {
		return ErrEmpty
	}
	if frame.ArmoredSize(len(envelope)) > frame.MaxPayload {
		return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(envelope))
	}
	meta, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := o.prepare(); err != nil {
		return err
	}
	tmp := path.Join(target.Staged, tmpPrefix+m.ID)
	files := map[string][]byte{metaFile: append(meta, '\n'), envelopeFile: envelope}
	if compact != nil {
		files[compactFile] = compact
	}
	if err := o.t.Create(tmp, files); err != nil {
		return errors.Join(fmt.Errorf("outbox: stage %q: %w", m.ID, err), o.t.RemoveAll(tmp))
	}
	o.written = append(o.written, m.ID)
	return nil
}

// Settle stages the envelopes that were written, and returns when they are
// durable, as is then all on the file systems of the directories given beside.
// After an error none of the envelopes is there.
func (o *Outbox) Settle(beside ...string) error {
	written := o.written
	o.written = nil
	err := o.settle(written, beside)
	if err == nil {
		return nil
	}
	errs := []error{fmt.Errorf("outbox: stage: %w", err)}
	for _, id := range written {
		errs = append(errs, o.t.RemoveAll(path.Join(target.Staged, tmpPrefix+id)), o.t.RemoveAll(path.Join(target.Staged, id)))
	}
	return errors.Join(errs...)
}

func (o *Outbox) settle(written, beside []string) error {
	if len(written) == 0 {
		return nil
	}
	if err := o.t.Sync(append([]string{target.Staged}, beside...)...); err != nil {
		return err
	}
	for _, id := range written {
		if err := o.t.Move(path.Join(target.Staged, tmpPrefix+id), path.Join(target.Staged, id)); err != nil {
			return err
		}
	}
	return o.t.SyncDir(target.Staged)
}

// Promote makes staged envelopes ready for delivery. One that is ready already
// is left as it is.
func (o *Outbox) Promote(ids ...string) error {
	for _, id := range ids {
		if err := frame.CheckID(id); err != nil {
			return err
		}
	}
	if err := o.prepare(); err != nil {
		return err
	}
	for _, id := range ids {
		staged, ready := path.Join(target.Staged, id), path.Join(target.Ready, id)
		if !o.t.Exists(staged) && o.t.Exists(ready) {
			continue
		}
		if err := o.t.Move(staged, ready); err != nil {
			return fmt.Errorf("outbox: promote %q: %w", id, err)
		}
	}
	// The new names first: a crash between the two leaves an envelope under both
	// at worst, never under none.
	if err := o.t.SyncDir(target.Ready); err != nil {
		return err
	}
	return o.t.SyncDir(target.Staged)
}

// Discard removes a staged envelope. It is no error if there is none.
func (o *Outbox) Discard(id string) error {
	return o.remove(target.Staged, id)
}

// Withdraw removes a ready envelope, whether it was delivered or not. It is
// no error if there is none.
func (o *Outbox) Withdraw(id string) error {
	return o.remove(target.Ready, id)
}

// Sweep removes what a crash left of envelopes that were being stored or
// removed.
func (o *Outbox) Sweep() error {
	for _, dir := range []string{target.Staged, target.Ready} {
		entries, err := o.t.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), tmpPrefix) {
				continue
			}
			if err := o.t.RemoveAll(path.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Staged lists the envelopes that are not committed, oldest first. Entries
// that are not whole, which only damage to the disk can cause, are left out.
func (o *Outbox) Staged() ([]Meta, error) {
	metas, _, err := o.list(target.Staged)
	return metas, err
}

// Ready lists the envelopes that may be delivered, oldest first. Entries that
// are not whole are left out.
func (o *Outbox) Ready() ([]Meta, error) {
	metas, _, err := o.list(target.Ready)
	return metas, err
}

// IDs lists the envelopes that are staged and those that are ready by their
// IDs, damaged ones among them.
func (o *Outbox) IDs() (staged, ready map[string]bool, err error) {
	if staged, err = o.ids(target.Staged); err != nil {
		return nil, nil, err
	}
	ready, err = o.ids(target.Ready)
	return staged, ready, err
}

func (o *Outbox) ids(dir string) (map[string]bool, error) {
	entries, err := o.t.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ids := map[string]bool{}
	for _, e := range entries {
		if frame.CheckID(e.Name()) == nil {
			ids[e.Name()] = true
		}
	}
	return ids, nil
}

// Envelope returns a ready envelope, a binary age file. The error is
// [fs.ErrNotExist] if there is none.
func (o *Outbox) Envelope(id string) ([]byte, error) {
	if err := frame.CheckID(id); err != nil {
		return nil, err
	}
	return o.t.ReadFile(path.Join(target.Ready, id, envelopeFile))
}

// Compact returns the card of a ready envelope in its compact form, a binary age
// file of its own, or nil if there is none.
func (o *Outbox) Compact(id string) ([]byte, error) {
	if err := frame.CheckID(id); err != nil {
		return nil, err
	}
	b, err := o.t.ReadFile(path.Join(target.Ready, id, compactFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

const (
	metaFile     = "meta.json"
	envelopeFile = "envelope.age"
	compactFile  = "compact.age"
	usedFile     = "used" // its user has logged in with a code
	tmpPrefix    = ".tmp-"
)

// used tells whether the user of a ready envelope has logged in with a code, as
// [Outbox.Hide] has noted. Delivery has no access to what says so itself.
func (o *Outbox) used(id string) bool { return o.t.Exists(usedMark(id)) }

func usedMark(id string) string { return path.Join(target.Ready, id, usedFile) }

func (m Meta) valid() error {
	if err := frame.CheckID(m.ID); err != nil {
		return err
	}
	if m.Supersedes != "" {
		if err := frame.CheckID(m.Supersedes); err != nil {
			return fmt.Errorf("supersedes: %w", err)
		}
	}
	return frame.CheckUser(m.User)
}

// prepare makes the directories and sweeps them, once.
func (o *Outbox) prepare() error {
	if o.ready {
		return nil
	}
	for _, dir := range []string{target.StateDir, target.Outbox, target.Staged, target.Ready} {
		if err := o.t.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	if err := o.Sweep(); err != nil {
		return err
	}
	o.ready = true
	return nil
}

// remove renames first, so that a crash in the middle leaves no half of an
// envelope under its own name.
func (o *Outbox) remove(dir, id string) error {
	if err := frame.CheckID(id); err != nil {
		return err
	}
	tmp := path.Join(dir, tmpPrefix+id)
	if err := o.t.RemoveAll(tmp); err != nil {
		return err
	}
	err := o.t.Rename(path.Join(dir, id), tmp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("outbox: remove %q: %w", id, err)
	}
	return o.t.RemoveAll(tmp)
}

// list returns the whole entries of dir and the names of the damaged ones.
func (o *Outbox) list(dir string) (metas []Meta, damaged []string, err error) {
	entries, err := o.t.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		m, err := o.meta(dir, e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist) && !o.t.Exists(path.Join(dir, e.Name())):
			// Withdrawn or promoted since the directory was read.
		case target.IsFault(err):
			return nil, nil, err
		case err != nil:
			damaged = append(damaged, e.Name())
		default:
			metas = append(metas, m)
		}
	}
	sort.Slice(metas, func(i, j int) bool {
		if !metas[i].Created.Equal(metas[j].Created) {
			return metas[i].Created.Before(metas[j].Created)
		}
		return metas[i].ID < metas[j].ID
	})
	return metas, damaged, nil
}

var errDamaged = errors.New("damaged entry in the outbox")

func (o *Outbox) meta(dir, id string) (Meta, error) {
	if err := frame.CheckID(id); err != nil {
		return Meta{}, err
	}
	data, err := o.t.ReadFile(path.Join(dir, id, metaFile))
	if err != nil {
		return Meta{}, err
	}
	var m Meta
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&m); err != nil {
		return Meta{}, errors.Join(errDamaged, err)
	}
	if err := m.valid(); err != nil {
		return Meta{}, errors.Join(errDamaged, err)
	}
	if m.ID != id {
		return Meta{}, errDamaged
	}
	fi, err := o.t.Stat(path.Join(dir, id, envelopeFile))
	if err != nil {
		return Meta{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() == 0 {
		return Meta{}, errDamaged
	}
	return m, nil
}
