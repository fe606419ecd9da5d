// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

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
