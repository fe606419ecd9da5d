// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

// Package tool makes the programs that tests run besides those of this project:
// Go programs out of a module that pins them, npm's packages out of a lock file,
// and what Debian packages hold, without installing them. Each is made once, into
// a cache, under a name that changes with its versions.
package tool
