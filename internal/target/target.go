// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package target is the machine that the agent works on, seen under a root
// directory: "/" is the running machine, anything else a disk mounted there
// or a root filesystem that is being built.
//
// # Promises
//
// Every name is an absolute path of the guest. Symbolic links resolve inside
// the root as chroot(2) would resolve them, absolute ones included, and no
// name leads out of it. What is written is durable when the call returns, and
// a write that fails leaves the old content and nothing beside it. The paths
// and commands of the guest that this project knows are all in paths.go.
//
// # Limits
//
// A resolved name is used right after, not at the same instant: whoever
// can change directories on the way may choose another file inside the root,
// never one outside of it. Locks, ownership and chroot exist on Linux alone;
// elsewhere the package compiles, and those calls fail.
package target

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Errors that callers tell apart.
var (
	ErrPath       = errors.New("not an absolute path")
	ErrTooLarge   = errors.New("larger than 1 MiB")
	ErrNotRegular = errors.New("not a regular file")
	ErrNotOurs    = errors.New("not a directory owned by the user the agent runs as; move it away")
	ErrLocked     = errors.New("locked by another process")
	ErrUserName   = errors.New("not a user name")
)

// A Target is one machine under its root. Its methods may be called from
// several goroutines.
type Target struct {
	dir    string
	root   *os.Root
	runner Runner
	held   []held // the deepest first

	confined []*confined
	trace    func(step, name string)
	fault    func(op, name string) error
}

// Open opens the machine whose root directory is dir, a path of this host.
func Open(dir string) (*Target, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	t := &Target{dir: dir, root: root, confined: confine(deliverable)}
	t.runner = execRunner{t}
	return t, nil
}

// Close releases the root directory.
func (t *Target) Close() error {
	for _, c := range t.confined {
		c.close()
	}
	return errors.Join(t.Release(), t.root.Close())
}

// Root is the root directory as a path of this host.
func (t *Target) Root() string { return t.dir }

// Live tells whether the target is the running machine itself.
func (t *Target) Live() bool { return t.dir == "/" }

// Booted tells whether the target is the running machine and systemd runs it:
// false on a mounted disk, in a chroot and in most containers.
func (t *Target) Booted() bool {
	return t.Live() && t.IsDir(SystemdRunDir)
}

// Exists tells whether name is there, a dangling link included.
func (t *Target) Exists(name string) bool {
	_, err := t.Lstat(name)
	return err == nil
}

// IsDir tells whether name is, or links to, a directory.
func (t *Target) IsDir(name string) bool {
	fi, err := t.Stat(name)
	return err == nil && fi.IsDir()
}

// IsRegular tells whether name is, or links to, a regular file.
func (t *Target) IsRegular(name string) bool {
	fi, err := t.Stat(name)
	return err == nil && fi.Mode().IsRegular()
}

// Stat describes the file that name leads to.
func (t *Target) Stat(name string) (fs.FileInfo, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	fi, err := t.lstat(rel)
	return fi, guest(name, err)
}

// Lstat describes name itself, which may be a symbolic link.
func (t *Target) Lstat(name string) (fs.FileInfo, error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return nil, err
	}
	fi, err := t.lstat(rel)
	return fi, guest(name, err)
}

func (t *Target) lstat(rel string) (fs.FileInfo, error) {
	if err := t.check("lstat", rel); err != nil {
		return nil, err
	}
	root, rel := t.at(rel)
	return root.Lstat(rel)
}

// Readlink reads the symbolic link name, unresolved.
func (t *Target) Readlink(name string) (string, error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return "", err
	}
	root, rel := t.at(rel)
	s, err := root.Readlink(rel)
	return s, guest(name, err)
}

// Resolve is the absolute guest path that name leads to; its last part is no link,
// and none of the others is absolute. The last parts of it need not exist. Whether two
// names lead to one file is for os.SameFile to say.
func (t *Target) Resolve(name string) (string, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return "", err
	}
	if rel == "." {
		return "/", nil
	}
	return "/" + rel, nil
}

// Owner is the numeric owner of a file described by Stat or Lstat; ok is
// false on systems that have none.
func Owner(fi fs.FileInfo) (uid, gid int, ok bool) { return owner(fi) }
