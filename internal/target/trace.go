// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import "io/fs"

// Trace calls f after each step on which what a power cut leaves depends: write
// and sync of a file under its temporary name, its rename to the final one, the
// syncdir of a directory, the syncfs of the file system that a directory is on.
// name is the guest's path, of a file the final one. Tests hold the order to what
// it must be; no file's content shows that a sync is missing.
func (t *Target) Trace(f func(step, name string)) { t.trace = f }

func (t *Target) note(step, rel string) {
	if t.trace == nil {
		return
	}
	if rel == "." {
		rel = ""
	}
	t.trace(step, "/"+rel)
}

// Fault calls f before each access to the machine and fails the access with the error that
// f returns, if any. op is open, lstat, create, write, sync, syncdir, syncfs,
// rename, remove, mkdir, symlink or chmod, and name the guest's path. Tests play the faults of
// a disk with it.
func (t *Target) Fault(f func(op, name string) error) { t.fault = f }

// check is asked before each access.
func (t *Target) check(op, rel string) error {
	if t.fault == nil {
		return nil
	}
	if rel == "." {
		rel = ""
	}
	if err := t.fault(op, "/"+rel); err != nil {
		return &fs.PathError{Op: op + "at", Path: rel, Err: err} // as os.Root says it
	}
	return nil
}
