// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
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

// openRegular takes hold of the file first, without opening it, and opens what it
// holds by way of /proc: nothing can come in between. Where there is no /proc, in
// some chroots of builds, it opens the name and compares.
func openRegular(root *os.Root, rel string, flag int) (*os.File, error) {
	held, err := root.OpenFile(rel, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	fi, err := held.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		return nil, errors.Join(err, ErrNotRegular)
	}
	f, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(int(held.Fd())), flag, 0)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f, err = root.OpenFile(rel, flag|nonblock, 0); err != nil {
		return nil, err
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(fi, opened) {
		f.Close()
		return nil, errors.Join(err, ErrNotRegular)
	}
	return f, nil
}

func flock(d *os.File) error {
	err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == syscall.EWOULDBLOCK {
		return ErrLocked
	}
	return err
}

// holder returns the PID of the process that has the flock of a file, or "". Btrfs
// numbers its devices in another way there, and a process outside of a container has no
// PID in it.
func holder(fi fs.FileInfo) string {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	locks, err := os.ReadFile("/proc/locks")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(locks)) {
		// 1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[5] == file && f[4] != "0" && f[4] != "-1" {
			return f[4]
		}
	}
	return ""
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

const errQuota = syscall.EDQUOT

// FS_IMMUTABLE_FL and FS_APPEND_FL of linux/fs.h.
const (
	immutable  = 0x10
	appendOnly = 0x20
)

// space describes the file system of a directory, and the directory's attributes.
func space(d *os.File) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.Fd()), &st); err != nil {
		return Space{}, os.NewSyscallError("statfs", err)
	}
	return Space{
		Bytes: st.Bfree * uint64(st.Bsize), Inodes: st.Ffree, // of the reserve root has the use
		// A tmpfs without a limit, and btrfs, have none.
		counts: st.Files > 0, readOnly: st.Flags&unix.ST_RDONLY != 0, attr: fixed(d),
		unlimited: st.Blocks == 0,
	}, nil
}

// fixed reports whether a file has an attribute (chattr) that keeps it from being replaced.
func fixed(f *os.File) bool {
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	return err == nil && flags&(immutable|appendOnly) != 0
}
