// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"io/fs"
	"os"
)

// Lock takes the exclusive lock of a directory without waiting; [ErrLocked]
// says that somebody else has it. The lock ends with the returned function or
// with the process.
func (t *Target) Lock(dir string) (unlock func(), err error) {
	d, err := t.OpenFile(dir, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	if err := flock(d); err != nil {
		d.Close()
		return nil, &fs.PathError{Op: "lock", Path: dir, Err: err}
	}
	return func() { d.Close() }, nil
}
