// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// maxSwept bounds what one pass removes, since each removal waits for the disk. The
// next pass continues.
const maxSwept = 256

// sweep removes what a pass that was killed has left: files that WriteFile had not
// renamed yet, and cards of the channel file whose envelopes have left the outbox. The
// caller holds the lock of deliveries.
func (o *Outbox) sweep() error {
	err := errors.Join(o.t.Sweep(target.Receipts), o.t.Sweep(target.Envelopes))
	entries, rerr := o.t.ReadDir(target.Envelopes)
	if errors.Is(rerr, fs.ErrNotExist) {
		return err
	}
	// After the cards: an envelope that becomes ready meanwhile has none yet.
	staged, ready, ierr := o.IDs()
	if rerr != nil || ierr != nil {
		return errors.Join(err, rerr, ierr)
	}
	swept := 0
	for _, e := range entries {
		m, ok := cardOf(e.Name())
		if !ok || !e.Type().IsRegular() || staged[m.ID] || ready[m.ID] {
			continue
		}
		if swept++; swept > maxSwept {
			break
		}
		err = errors.Join(err, file{o.t}.Withdraw(m))
	}
	return err
}

// cardOf returns user and ID of a file of the channel file, by its name.
func cardOf(name string) (m Meta, ok bool) {
	stem, ok := strings.CutSuffix(name, ".age")
	dot := strings.LastIndexByte(stem, '.')
	if !ok || dot < 0 {
		return Meta{}, false
	}
	m = Meta{User: stem[:dot], ID: stem[dot+1:]}
	return m, m.valid() == nil
}

// dropDamaged removes ready envelopes that are damaged: none of them can be delivered.
// The error names those that no channel had before.
func (p *pass) dropDamaged(names []string) error {
	var junk, ids []string
	for _, name := range names {
		if frame.CheckID(name) == nil {
			ids = append(ids, name)
		} else {
			junk = append(junk, name)
		}
	}
	if len(junk) > 0 {
		p.logf("%s: ignored %d entries that are not envelopes: %s", target.Ready, len(junk), firstOf(junk))
	}
	if len(ids) == 0 {
		return nil
	}
	unlock, err := p.box.t.Lock(target.StateDir)
	if errors.Is(err, target.ErrLocked) {
		return nil // an enrollment is at work; the next pass comes
	}
	if err != nil {
		return err
	}
	defer unlock()
	var lost []string
	var errs []error
	for i, id := range ids {
		if i == maxSwept {
			break
		}
		if _, err := p.box.meta(target.Ready, id); !errors.Is(err, errDamaged) {
			continue // withdrawn since it was listed
		}
		has, err := p.box.HasReceipt(id)
		if err == nil {
			err = p.box.retire(p.to, Meta{ID: id})
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case has:
			p.logf("%s/%s: damaged envelope, removed; a channel had it before", target.Ready, id)
		default:
			lost = append(lost, id)
		}
	}
	if len(lost) > 0 {
		errs = append(errs, fmt.Errorf("%s: removed %d: %s: %w", target.Ready, len(lost), firstOf(lost), errDamaged))
	}
	return errors.Join(errs...)
}

// firstOf quotes the first of some names for an error or a log line.
func firstOf(names []string) string {
	const most = 3
	var quoted []string
	for _, name := range names[:min(len(names), most)] {
		quoted = append(quoted, fmt.Sprintf("%.64q", name))
	}
	if len(names) > most {
		quoted = append(quoted, "…")
	}
	return strings.Join(quoted, ", ")
}
