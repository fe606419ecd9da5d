// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import "golang.org/x/sys/windows"

// errPathLength is what connect says of a socket path that is too long.
var errPathLength error = windows.WSAEINVAL

// syncDir has nothing to do: NTFS journals names, and Windows does not
// synchronise directories.
func syncDir(string) error { return nil }
