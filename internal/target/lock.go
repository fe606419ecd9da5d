// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
)

// ErrLockOpen means that other users can open what is to be locked. flock(2) asks for
// no right beyond that, so any of them could hold the lock forever.
var ErrLockOpen = errors.New("other users can open it, and could hold its lock; make it root's with mode 0700")

// Lock takes the exclusive lock of a directory that is closed to all other users,
// without waiting; [ErrLocked] means that another process has it. The lock ends with
// the returned function or with the process.
func (t *Target) Lock(dir string) (unlock func(), err error) {
	return t.lock(dir, os.O_RDONLY)
}

// LockFile is Lock of a file, which is made where it is missing. It is for
// directories that other users can open.
func (t *Target) LockFile(name string) (unlock func(), err error) {
	return t.lock(name, os.O_RDWR|os.O_CREATE|nonblock)
}

// Holder names the process that has the lock of a directory: its PID, and its program
// if that can be seen, with the command of a totp-agent. It returns "" if the process
// is unknown.
func (t *Target) Holder(dir string) string {
	fi, err := t.Stat(dir)
	if err != nil {
		return ""
	}
	pid := holder(fi)
	if pid == "" {
		return ""
	}
	b, _ := os.ReadFile("/proc/" + pid + "/cmdline")
	if name := program(strings.Split(string(b), "\x00")); name != "" {
		return name + " (pid " + pid + ")"
	}
	return "pid " + pid
}

// program returns the program of a command line, or "" if its name is unusual. No other
// argument than the command of a totp-agent is to get into an error.
func program(argv []string) string {
	name := path.Base(argv[0])
	if name == path.Base(AgentPath) && len(argv) > 1 {
		name += " " + argv[1]
	}
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz- ") != "" {
		return ""
	}
	return name
}

func (t *Target) lock(name string, flag int) (unlock func(), err error) {
	f, err := t.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	if err = closed(f); err == nil {
		err = flock(f)
	}
	if err != nil {
		f.Close()
		return nil, &fs.PathError{Op: "lock", Path: name, Err: err}
	}
	return func() { f.Close() }, nil
}

// closed reports, by ErrLockOpen, whether others than its owner could open f.
func closed(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	uid, _, ok := owner(fi)
	if !fi.IsDir() && !fi.Mode().IsRegular() || fi.Mode().Perm()&0o077 != 0 || ok && uid != os.Geteuid() {
		return ErrLockOpen
	}
	return nil
}
