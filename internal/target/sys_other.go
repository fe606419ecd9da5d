// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package target

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

const nonblock = 0

var errNoLinux = errors.New("not possible on this system; the agent runs on linux")

func owner(fs.FileInfo) (uid, gid int, ok bool) { return 0, 0, false }

func openRegular(root *os.Root, rel string, flag int) (*os.File, error) {
	if fi, err := root.Lstat(rel); err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, ErrNotRegular)
	}
	return root.OpenFile(rel, flag, 0)
}

func flock(*os.File) error { return errNoLinux }

func holder(fs.FileInfo) string { return "" }

func chroot(string) *syscall.SysProcAttr { return nil }

func device(*os.File) (uint64, error) { return 0, nil }

func syncfs(*os.File) error { return nil }

var errQuota = errNoLinux

func space(*os.File) (Space, error) { return Space{}, errNoLinux }

func fixed(*os.File) bool { return false }
