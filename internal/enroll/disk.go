// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// stateSize is what a login writes: no state file of ours comes near it.
const stateSize = 4 << 10

// diskState reports what keeps logins from writing, if anything, and what room is left. On
// a disk that is mounted elsewhere neither says anything about logins. It writes a file
// to know it, in a directory that no unit watches; a boot, which changes nothing without
// need, does that only where there is little room.
func diskState(t *target.Target, boot bool, log io.Writer) (*target.Space, error) {
	if !isLive(t) {
		return nil, nil
	}
	space, err := t.CheckReplace(target.PAMStateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // another problem
	}
	if err == nil && (space.Low() || !boot) {
		err = t.CheckRewrite(target.PAMStateDir, target.StateDir, stateSize)
	}
	if err != nil && !target.IsDiskFault(err) {
		fmt.Fprintf(log, "disk: %v\n", err)
		err = nil
	}
	return &space, err
}

// diskError replaces an error that a disk causes, which may be one for each user, by one
// that says what is wrong with the disk.
func diskError(t *target.Target, err error) error {
	if !target.IsDiskFault(err) {
		return err
	}
	for _, dir := range []string{target.PAMStateDir, target.StateDir, target.VarLib} {
		probe := t.CheckRewrite(dir, "", stateSize)
		if errors.Is(probe, fs.ErrNotExist) {
			continue
		}
		if target.IsDiskFault(probe) {
			return fmt.Errorf("%w; %s", probe, kindOf(codeOf(probe)).Fix)
		}
	}
	return err
}
