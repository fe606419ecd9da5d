// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package target

// FileID names a file system and a file on it, on Linux.
func (*Target) FileID(string) (fs, id string, err error) { return "", "", errNoLinux }
