// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"os"

	"golang.org/x/sys/windows"
)

// errPathLength is what connect says of a socket path that is too long.
var errPathLength error = windows.WSAEINVAL

// syncDir has nothing to do: NTFS journals names, and Windows does not
// synchronise directories.
// ours takes Windows's own access control at its word.
func ours(os.FileInfo) bool { return true }

func syncDir(string) error { return nil }
