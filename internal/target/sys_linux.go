// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const nonblock = syscall.O_NONBLOCK

func owner(fi fs.FileInfo) (uid, gid int, ok bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}

func flock(d *os.File) error {
	err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

func chroot(dir string) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Chroot: dir}
}

// device numbers the file system that d is on.
func device(d *os.File) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(d.Fd()), &st)
	return st.Dev, err
}

func syncfs(d *os.File) error {
	return unix.Syncfs(int(d.Fd()))
}
