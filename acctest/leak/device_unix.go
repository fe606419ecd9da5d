// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package leak

import (
	"fmt"
	"os"
	"syscall"
)

// deviceOf returns a number of the file system that a directory is on.
func deviceOf(dir string) (uint64, error) {
	info, err := os.Lstat(dir)
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, fmt.Errorf("%s: no device number", dir)
	}
	return uint64(stat.Dev), nil
}
