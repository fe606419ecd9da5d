// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux && amd64

package faults

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// nature is what a system call does, which decides how it can fail.
type nature int

const (
	change nature = iota // of an entry or of its attributes: needs a writable file system
	create               // of an entry: needs room, too
	opens                // creates or truncates a file: needs a descriptor, too
	write                // of bytes through a descriptor: needs room
	adjust               // of an open file: can only meet a damaged disk
)

// A syscallKind is how a state-changing system call names what it changes. Indices of
// arguments are -1 for a call without that argument.
type syscallKind struct {
	name   string
	nature nature
	dir    int // the directory's descriptor
	name1  int // the path
	dir2   int
	name2  int // the path of the new entry
	fd     int // the open file
	size   int // the number of bytes
}

func byName(name string, n nature, at int) syscallKind {
	return syscallKind{name, n, -1, at, -1, -1, -1, -1}
}

func byNameAt(name string, n nature, dir int) syscallKind {
	return syscallKind{name, n, dir, dir + 1, -1, -1, -1, -1}
}

func byDescriptor(name string, n nature, fd, size int) syscallKind {
	return syscallKind{name, n, -1, -1, -1, -1, fd, size}
}

// syscalls are the calls that change what is on a disk.
var syscalls = map[uint64]syscallKind{
	unix.SYS_OPEN:    byName("open", opens, 0),
	unix.SYS_CREAT:   byName("creat", opens, 0),
	unix.SYS_OPENAT:  byNameAt("openat", opens, 0),
	unix.SYS_OPENAT2: byNameAt("openat2", opens, 0),

	unix.SYS_MKDIR:     byName("mkdir", create, 0),
	unix.SYS_MKDIRAT:   byNameAt("mkdirat", create, 0),
	unix.SYS_MKNOD:     byName("mknod", create, 0),
	unix.SYS_MKNODAT:   byNameAt("mknodat", create, 0),
	unix.SYS_SYMLINK:   byName("symlink", create, 1),
	unix.SYS_SYMLINKAT: byNameAt("symlinkat", create, 1),
	unix.SYS_LINK:      {"link", create, -1, 0, -1, 1, -1, -1},
	unix.SYS_LINKAT:    {"linkat", create, 0, 1, 2, 3, -1, -1},
	unix.SYS_RENAME:    {"rename", create, -1, 0, -1, 1, -1, -1},
	unix.SYS_RENAMEAT:  {"renameat", create, 0, 1, 2, 3, -1, -1},
	unix.SYS_RENAMEAT2: {"renameat2", create, 0, 1, 2, 3, -1, -1},
	unix.SYS_SETXATTR:  byName("setxattr", create, 0),
	unix.SYS_LSETXATTR: byName("lsetxattr", create, 0),

	unix.SYS_UNLINK:       byName("unlink", change, 0),
	unix.SYS_UNLINKAT:     byNameAt("unlinkat", change, 0),
	unix.SYS_RMDIR:        byName("rmdir", change, 0),
	unix.SYS_TRUNCATE:     byName("truncate", change, 0),
	unix.SYS_CHMOD:        byName("chmod", change, 0),
	unix.SYS_FCHMODAT:     byNameAt("fchmodat", change, 0),
	unix.SYS_FCHMODAT2:    byNameAt("fchmodat2", change, 0),
	unix.SYS_CHOWN:        byName("chown", change, 0),
	unix.SYS_LCHOWN:       byName("lchown", change, 0),
	unix.SYS_FCHOWNAT:     byNameAt("fchownat", change, 0),
	unix.SYS_UTIMENSAT:    byNameAt("utimensat", change, 0),
	unix.SYS_REMOVEXATTR:  byName("removexattr", change, 0),
	unix.SYS_LREMOVEXATTR: byName("lremovexattr", change, 0),

	unix.SYS_WRITE:           byDescriptor("write", write, 0, 2),
	unix.SYS_PWRITE64:        byDescriptor("pwrite64", write, 0, 2),
	unix.SYS_WRITEV:          byDescriptor("writev", write, 0, -1),
	unix.SYS_PWRITEV:         byDescriptor("pwritev", write, 0, -1),
	unix.SYS_SENDFILE:        byDescriptor("sendfile", write, 0, 3),
	unix.SYS_COPY_FILE_RANGE: byDescriptor("copy_file_range", write, 2, 4),
	unix.SYS_FALLOCATE:       byDescriptor("fallocate", write, 0, -1),
	unix.SYS_FSETXATTR:       byDescriptor("fsetxattr", write, 0, -1),

	unix.SYS_FTRUNCATE:    byDescriptor("ftruncate", adjust, 0, -1),
	unix.SYS_FCHMOD:       byDescriptor("fchmod", adjust, 0, -1),
	unix.SYS_FCHOWN:       byDescriptor("fchown", adjust, 0, -1),
	unix.SYS_FREMOVEXATTR: byDescriptor("fremovexattr", adjust, 0, -1),
	unix.SYS_FSYNC:        byDescriptor("fsync", adjust, 0, -1),
	unix.SYS_FDATASYNC:    byDescriptor("fdatasync", adjust, 0, -1),
	unix.SYS_SYNCFS:       byDescriptor("syncfs", adjust, 0, -1),
}

// errnos are the errors that a call of each nature can end with.
var errnos = map[nature][]unix.Errno{
	change: {unix.EIO, unix.EROFS, unix.EACCES},
	create: {unix.ENOSPC, unix.EIO, unix.EROFS, unix.EACCES},
	opens:  {unix.ENOSPC, unix.EIO, unix.EROFS, unix.EACCES, unix.EMFILE},
	write:  {unix.ENOSPC, unix.EIO},
	adjust: {unix.EIO},
}

// A Call is one state-changing system call of a program.
type Call struct {
	Number int    // from 1, over all threads and processes of the program
	Name   string // of the system call
	Path   string // as the program sees it; of a rename the new one; "stdout" for standard output
	Size   int    // bytes to write

	nature   nature
	sizeArg  int
	original uint64 // the size as the program gave it
}

func (c Call) String() string { return c.Name + " " + c.Path }

// stdout is the path of a call that writes what the command prints. Where that is kept is
// another disk than the machine's.
const stdout = "stdout"

// An Action is what happens at a call.
type Action int

// The actions.
const (
	KillBefore Action = iota
	KillAfter
	Half  // half of the bytes are written, then the program is killed
	Short // half of the bytes are written; every later write fails for lack of space
	Fail  // this call fails, and later ones do not
	FailFrom
)

var actionNames = map[Action]string{
	KillBefore: "kill before", KillAfter: "kill after", Half: "half write and kill",
	Short: "short write and ENOSPC from then on at", Fail: "fail", FailFrom: "fail from",
}

// A Fault is an action at one call of a program.
type Fault struct {
	Call   int // its number
	Action Action
	Errno  unix.Errno // of Fail and FailFrom
}

func (f Fault) String() string {
	s := actionNames[f.Action]
	if f.Errno != 0 {
		s = unix.ErrnoName(f.Errno) + ": " + s
	}
	return s
}

// Kills reports whether the program ends by the fault itself.
func (f Fault) Kills() bool {
	return f.Action == KillBefore || f.Action == KillAfter || f.Action == Half
}

// Faults returns all that can happen at a call.
func (c Call) Faults() []Fault {
	all := []Fault{{c.Number, KillBefore, 0}, {c.Number, KillAfter, 0}}
	if c.Size > 1 {
		all = append(all, Fault{c.Number, Half, 0}, Fault{c.Number, Short, 0})
	}
	for _, errno := range errnos[c.nature] {
		all = append(all, Fault{c.Number, Fail, errno}, Fault{c.Number, FailFrom, errno})
	}
	return all
}

// errno returns the error that a call ends with under the fault; 0: none.
func (f Fault) errno(at, c Call) unix.Errno {
	later := c.Number > f.Call && (c.Path == stdout) == (at.Path == stdout) && c.Name != ""
	switch {
	case f.Action == Fail && c.Number == f.Call, f.Action == FailFrom && c.Number == f.Call:
		return f.Errno
	case f.Action == FailFrom && later && can(c, f.Errno):
		return f.Errno
	case f.Action == Short && later && can(c, unix.ENOSPC):
		return unix.ENOSPC
	}
	return 0
}

func can(c Call, errno unix.Errno) bool {
	for _, e := range errnos[c.nature] {
		if e == errno {
			return true
		}
	}
	return false
}

// onDisk reports whether a path, as the kernel names it, is that of a file on a disk.
func onDisk(name string) bool {
	if !strings.HasPrefix(name, "/") || strings.HasPrefix(name, "/memfd:") {
		return false
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return false
		}
	}
	return path.IsAbs(name)
}
