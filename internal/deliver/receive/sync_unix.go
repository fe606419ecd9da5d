// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package receive

import (
	"errors"
	"os"
	"syscall"
)

// errPathLength is what connect(2) says of a socket path that is too long.
var errPathLength error = syscall.EINVAL

// ours reports whether only the user who runs this can write to it.
func ours(fi os.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid() && fi.Mode()&0o022 == 0
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// confidential reports whether a file is readable for its owner and group at
// most, and writable for its owner alone.
func confidential(fi os.FileInfo) bool { return fi.Mode()&0o027 == 0 }
