// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package deliver

import "syscall"

// openDevice opens a device without waiting for anything, now or later, and
// without making it the controlling terminal of a service that has none.
const openDevice = syscall.O_NONBLOCK | syscall.O_NOCTTY
