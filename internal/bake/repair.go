// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"fmt"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Repair puts the agent's line back into the PAM service sshd, where an update
// of the package has put its own file in the place of ours: an sshd that still
// demands keyboard-interactive would take a password there. It is for a system
// that was baked; any other is left alone. It reports whether anything was
// changed.
//
// Only a file that bake would have changed in the same way is. One that somebody
// has customised is an error, [ErrPAM], and stays as it is.
func Repair(t *target.Target) (changed bool, err error) {
	if !t.Exists(target.ImagePolicy) {
		return false, nil
	}
	o, err := t.OS()
	if err != nil {
		return false, err
	}
	// An upgrade of the whole system may have made it one that no bake knows. The
	// line in question is that of the distribution, whatever its version.
	i := slices.IndexFunc(systems, func(s system) bool { return s.id == o.ID })
	if i < 0 {
		return false, fmt.Errorf("%s: ID %q: %w", target.OSRelease, o.ID, ErrSystem)
	}
	f := &facts{system: systems[i]}
	if now, want, err := f.pamFile(t); err != nil || now == want {
		return false, err
	}
	// An agent that is at work, a second hook, say, may be doing the same.
	unlock, err := t.Lock(target.StateDir)
	if err != nil && !errors.Is(err, target.ErrLocked) {
		return false, err
	}
	if err == nil {
		defer unlock()
	}
	now, want, err := f.pamFile(t)
	if err != nil || now == want {
		return false, err
	}
	fi, err := t.Lstat(target.PAMService)
	if err != nil {
		return false, err
	}
	if err := t.WriteFile(target.PAMService, []byte(want), fi.Mode().Perm()); err != nil {
		return false, fmt.Errorf("repair: %w", err)
	}
	return true, nil
}
