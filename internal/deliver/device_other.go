// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build !unix

package deliver

// openDevice is nothing here: the agent runs on Linux only.
const openDevice = 0
