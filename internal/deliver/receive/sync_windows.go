// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"os"

	"golang.org/x/sys/windows"
)

// errPathLength is what connect says of a socket path that is too long.
var errPathLength error = windows.WSAEINVAL

// ours takes Windows's own access control at its word.
func ours(os.FileInfo) bool { return true }

// syncDir has nothing to do: NTFS journals names, and Windows does not
// synchronise directories.
func syncDir(string) error { return nil }

func confidential(os.FileInfo) bool { return true }
