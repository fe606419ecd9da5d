// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// boundFile caches the identity that the present enrollments were made for.
// The PAM state files say the same; this file says it also for a machine on
// which nobody could be enrolled.
const boundFile = target.Identity

type bound struct {
	Identity string `json:"identity"`
	From     string `json:"from"`

	// Adopt has the IDs, separated by blanks, of enrollments that root made on this disk
	// while it was mounted elsewhere. They are valid at the next boot, once, also where
	// that boot cannot tell which machine it is: they are the way back in. An ID is
	// written before its enrollment is committed, and says nothing without its state file.
	Adopt string `json:"adopt,omitempty"`
}

// heldSuffix marks a PAM state file that is set aside while the machine's
// identity is unknown. No account can have such a name, so PAM finds no file
// for the user, and SSH is closed to them.
const heldSuffix = "~held"

// bind settles which machine this is and brings the PAM state files in line
// with it: kept, set aside, taken back, or removed. It reports whether users
// may be enrolled in this boot.
func (r *run) bind() (open bool, err error) {
	old, err := boundIdentity(r.t)
	if err != nil {
		return false, err
	}
	if old.IsZero() {
		// The first boot: what cloud-init has made of accounts, keys and layers is
		// not on the disk yet, and is not made again after a power cut.
		if err := r.t.Sync("/", target.HomeDir, target.StateDir); err != nil {
			return false, err
		}
	}
	r.here, err = look(r.t, old)
	if err != nil {
		return false, err
	}
	if old, err = r.correct(old); err != nil {
		return false, err
	}
	if r.AdoptMachine && r.here.known {
		fmt.Fprintf(r.Log, "identity: %s; it is known, so there is nothing to adopt\n", r.here.why)
	}
	switch {
	case r.here.known:
	case !old.IsZero() && old.sameHardware(r.here.Identity):
		fmt.Fprintf(r.Log, "enroll: identity %s; machine-id and DMI UUID are as before, so everything is kept\n", r.here.why)
		r.here.Identity = old
	case r.AdoptMachine:
		return true, r.adoptMachine()
	default:
		if adopted, err := r.adopt(); adopted || err != nil {
			return adopted, err
		}
		fmt.Fprintf(r.Log, "enroll: identity %s; SSH stays closed\n", r.here.why)
		return false, r.hold()
	}
	if r.here.dmi == absent && r.here.primary == old.primary {
		r.here.dmi = old.dmi // one boot that cannot read it does not loosen the binding
	}
	if err := r.release(); err != nil {
		return false, err
	}
	moved := old.IsZero() || !old.same(r.here.Identity)
	if err := r.forget(moved); err != nil {
		return false, err
	}
	atStep("forgotten")
	return true, r.remember()
}

// adopt takes over the enrollment that root has made by a reset from a rescue
// system: this machine is bound by its machine-id from now on, and what was
// enrolled before is removed.
func (r *run) adopt() (bool, error) {
	have, err := readBound(r.t)
	if err != nil || have.Adopt == "" {
		return false, err
	}
	if r.here.machineID == "" {
		return false, nil
	}
	r.own()
	adoptable := strings.Fields(have.Adopt)
	kept := map[string][]byte{}
	err = r.eachState(func(n, _ string) error {
		if strings.Contains(n, "~") {
			return nil // set aside, or the module's temporary file
		}
		state, err := readState(r.t, n)
		if target.IsFault(err) {
			return err
		}
		if err != nil || !slices.Contains(adoptable, state.Mark.ID) {
			return nil
		}
		state.Mark.Identity = r.here.Identity.String()
		kept[n], err = state.Format()
		return err
	})
	if err != nil || len(kept) == 0 {
		return false, err
	}
	// The files first: a crash leaves some that are of this machine, and the mark.
	names := slices.Sorted(maps.Keys(kept))
	for _, name := range names {
		if err := r.t.WriteFile(path.Join(target.PAMStateDir, name), kept[name], 0o400); err != nil {
			return false, err
		}
	}
	if err := r.forget(false); err != nil {
		return false, err
	}
	fmt.Fprintf(r.Log, "enroll: identity %s; bound to the machine-id, since root has reset %q on this disk\n", r.here.why, names)
	return true, r.remember()
}

// adoptMachine binds this machine, whose identity is unknown, to its machine-id. What was
// enrolled before is removed, since it may be another machine's, and the new identity is
// written last: a crash in between leaves SSH closed and the identity unknown.
func (r *run) adoptMachine() error {
	if err := r.ensureMachineID(); err != nil {
		return err
	}
	why := r.here.why
	r.own()
	if err := r.forget(true); err != nil {
		return err
	}
	atStep("forgotten")
	r.here.why = "machine-id, adopted by root; before: " + why
	fmt.Fprintf(r.Log, "identity: %s; bound to the machine-id, and everything enrolled before is removed\n", why)
	return r.remember()
}

// own makes the machine's own identity the present one, for root who asks for it.
func (r *run) own() {
	r.here.primary = primary(kindMachine, r.here.machineID)
}

// ensureMachineID makes a machine-id where there is none, as systemd does.
func (r *run) ensureMachineID() error {
	if r.here.machineID != "" {
		return nil
	}
	b := make([]byte, 16)
	if _, err := io.ReadFull(r.Rand, b); err != nil {
		return err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a version 4 UUID, see machine-id(5)
	id := hex.EncodeToString(b)
	if err := r.t.WriteFile(target.MachineID, []byte(id+"\n"), 0o444); err != nil {
		return err
	}
	r.here.machineID, r.here.machine = id, digest("machine", id)
	return nil
}

// readBound reads the cache, which is empty where it is missing or damaged.
func readBound(t *target.Target) (bound, error) {
	var v bound
	b, err := t.ReadFile(boundFile)
	if errors.Is(err, fs.ErrNotExist) {
		return v, nil
	}
	if err != nil || json.Unmarshal(b, &v) != nil {
		return bound{}, err
	}
	return v, nil
}

// boundIdentity returns the identity that the present enrollments were made
// for, zero if there is none or no single one.
func boundIdentity(t *target.Target) (Identity, error) {
	have, err := readBound(t)
	if err != nil {
		return Identity{}, err
	}
	if id, err := ParseIdentity(have.Identity); err == nil {
		return id, nil
	}
	entries, err := readDir(t, target.PAMStateDir)
	if err != nil {
		return Identity{}, err
	}
	var found Identity
	for _, e := range entries {
		state, err := readState(t, e.Name())
		if target.IsFault(err) {
			return Identity{}, err
		}
		if err != nil {
			continue
		}
		id, err := ParseIdentity(state.Mark.Identity)
		if err != nil {
			continue
		}
		if !found.IsZero() && !found.same(id) {
			return Identity{}, nil // two machines' files in one place: neither is trusted
		}
		found = id
	}
	return found, nil
}

// correct returns the identity that a PAM state file names if that is this machine and old,
// the cached one, is not: a copied or restored cache does not make the machine another one.
// A clone has no state file that names it.
func (r *run) correct(old Identity) (Identity, error) {
	is := r.here.same
	if !r.here.known {
		is = r.here.sameHardware
	}
	if old.IsZero() || is(old) {
		return old, nil
	}
	found := old
	err := r.eachState(func(name, _ string) error {
		state, err := readState(r.t, name)
		if err != nil || found != old {
			return nil
		}
		if id, err := ParseIdentity(state.Mark.Identity); err == nil && is(id) {
			found = id
			fmt.Fprintf(r.Log, "identity: %s names another machine, and PAM state files name this one; it is corrected\n", boundFile)
		}
		return nil
	})
	return found, err
}

// remember writes the bound identity if it is not what stands there.
func (r *run) remember() error {
	if have, err := readBound(r.t); err == nil && have.Identity == r.here.Identity.String() && have.Adopt == r.adopted {
		return nil
	}
	want, err := json.Marshal(bound{Identity: r.here.Identity.String(), From: r.here.why, Adopt: r.adopted})
	if err != nil {
		return err
	}
	return r.t.WriteFile(boundFile, append(want, '\n'), 0o600)
}

// forget removes what was made for another machine. If the whole machine is
// another one than before, that is everything: state files, those set aside,
// the module's temporary files, and the envelopes that wait for delivery.
// Otherwise it is a state file whose own mark names another machine.
func (r *run) forget(all bool) error {
	entries, err := readDir(r.t, target.PAMStateDir)
	if err != nil {
		return err
	}
	gone, names := map[string]bool{}, map[string]bool{}
	for _, e := range entries {
		if !all {
			state, err := readState(r.t, e.Name())
			if err != nil || state.Mark.ID == "" {
				continue
			}
			if id, err := ParseIdentity(state.Mark.Identity); err == nil && id.same(r.here.Identity) {
				continue
			}
			gone[state.Mark.ID] = true
		}
		names[e.Name()] = true
	}
	// Durable before its envelope goes.
	err = r.removeStates(func(name string) bool { return all || names[name] || names[userOf(name)] }, func(name string) {
		fmt.Fprintf(r.Log, "enroll: removed the PAM state file %q, which was made for another machine\n", name)
	})
	if err != nil {
		return err
	}
	if !all && len(gone) == 0 {
		return nil
	}
	if all {
		if err := r.t.RemoveAll(target.Envelopes); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := r.forgetReceipts(); err != nil {
			return err
		}
	}
	return r.withdraw(func(m deliver.Meta) bool { return all || gone[m.ID] })
}

// forgetReceipts removes what another machine's channels have taken: those that take
// one envelope in their life are this machine's own, and have had none.
func (r *run) forgetReceipts() error {
	entries, err := readDir(r.t, target.Receipts)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.t.RemoveAll(path.Join(target.Receipts, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// withdraw takes envelopes out of the outbox, staged and ready.
func (r *run) withdraw(which func(deliver.Meta) bool) error {
	staged, ready, err := r.outbox.IDs()
	if err != nil {
		return err
	}
	for _, box := range []struct {
		ids    map[string]bool
		list   func() ([]deliver.Meta, error)
		remove func(deliver.Meta) error
	}{{staged, r.outbox.Staged, func(m deliver.Meta) error { return r.outbox.Discard(m.ID) }}, {ready, r.outbox.Ready, r.retire}} {
		metas, err := box.list()
		if err != nil {
			return err
		}
		whole := ids(metas)
		for id := range box.ids {
			if !whole[id] {
				metas = append(metas, deliver.Meta{ID: id}) // damaged: nothing else of it is known
			}
		}
		for _, m := range metas {
			if !which(m) {
				continue
			}
			if err := box.remove(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// retire takes an envelope back with what channels have left of it: it is of a
// dead enrollment. Before the policy is known, those are the channels that an
// image has by default.
func (r *run) retire(m deliver.Meta) error {
	e := r.policy
	if e == nil {
		e = &policy.Effective{Policy: *new(policy.Policy).WithDefaults()}
	}
	return r.outbox.Retire(e, m)
}

// hold sets every PAM state file aside.
func (r *run) hold() error {
	return r.untilGone(func(name, file string) (bool, error) {
		switch {
		case strings.HasSuffix(name, heldSuffix):
			return false, nil
		case strings.Contains(name, "~"):
			return true, r.t.RemoveAll(file)
		}
		return true, r.t.Rename(file, file+heldSuffix)
	})
}

// removeState removes the state file of a user.
func (r *run) removeState(user string) error {
	return r.removeStates(func(name string) bool { return userOf(name) == user }, nil)
}

// removeStates removes state files, and the module's temporary files of the same users with
// them. removed, if any, is called with the name of each that was there.
func (r *run) removeStates(which func(name string) bool, removed func(name string)) error {
	said := map[string]bool{}
	return r.untilGone(func(name, file string) (bool, error) {
		if !which(name) {
			return false, nil
		}
		if err := r.t.RemoveAll(file); err != nil {
			return true, err
		}
		if removed != nil && !said[name] {
			removed(name)
		}
		said[name] = true
		return true, nil
	})
}

// untilGone calls take for every name in the directory of the state files, again and again
// until two lists in a row have nothing that take wants. A login in flight renames its
// temporary file over a state file that was taken away meanwhile, and one list can miss both
// names. Where there is no state file the module makes no temporary one.
func (r *run) untilGone(take func(name, file string) (taken bool, err error)) error {
	for clean, lists := 0, 0; clean < 2; lists++ {
		if lists > maxLists {
			return fmt.Errorf("%s: %w", target.PAMStateDir, ErrBusy)
		}
		clean++
		err := r.eachState(func(name, file string) error {
			taken, err := take(name, file)
			if taken {
				clean = 0
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// maxLists is more than logins in flight can cause.
const maxLists = 20

// userOf is the user of a state file, of one set aside, or of the module's temporary one.
func userOf(name string) string {
	user, _, _ := strings.Cut(name, "~")
	return user
}

// release takes back what was set aside, unless a newer file has taken its
// place. What belongs to another machine is removed with the rest afterwards.
func (r *run) release() error {
	return r.eachState(func(name, file string) error {
		live, ok := strings.CutSuffix(file, heldSuffix)
		if !ok {
			return nil
		}
		if r.t.Exists(live) {
			return r.t.Remove(file)
		}
		return r.t.Rename(file, live)
	})
}

func (r *run) eachState(do func(name, file string) error) error {
	entries, err := readDir(r.t, target.PAMStateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := do(e.Name(), path.Join(target.PAMStateDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// readState reads the PAM state file of that name. The parser's errors name
// lines and rules, never what stands in them.
// An account whose name is a path, which /etc/passwd can hold, has none.
func readState(t *target.Target, name string) (otp.State, error) {
	file := path.Join(target.PAMStateDir, name)
	if path.Dir(file) != target.PAMStateDir || path.Base(file) != name {
		return otp.State{}, fmt.Errorf("%q: %w", name, fs.ErrNotExist)
	}
	info, err := t.Lstat(file)
	if err != nil {
		return otp.State{}, err
	}
	if !info.Mode().IsRegular() {
		return otp.State{}, fmt.Errorf("%s: not a regular file", file)
	}
	b, err := t.ReadFile(file)
	if err != nil {
		return otp.State{}, err
	}
	s, err := otp.ParseState(b)
	if err != nil {
		return otp.State{}, fmt.Errorf("%s: %w", file, err)
	}
	return s, nil
}

func readDir(t *target.Target, name string) ([]fs.DirEntry, error) {
	entries, err := t.ReadDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return entries, err
}
