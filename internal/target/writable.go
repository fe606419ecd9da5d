// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"
)

// What keeps the files of a directory from being replaced.
var (
	ErrDiskFull = errors.New("no space left for root on its file system")
	ErrNoInodes = errors.New("no inodes left on its file system")
	ErrReadOnly = errors.New("its file system is read-only")
	ErrAttr     = errors.New("has the attribute immutable or append-only")
)

// Below these a disk is reported as low: what is left is good for a few hours of logs
// on a small server, and for thousands of logins.
const (
	lowBytes  = 16 << 20
	lowInodes = 512
)

// A Space is what root can still write on the file system of a directory.
type Space struct {
	Bytes  uint64 `json:"bytes"`            // free for root, who may use the reserve of ext4
	Inodes uint64 `json:"inodes,omitempty"` // free; 0 where the file system does not count them

	unlimited bool // it counts no blocks, as a tmpfs of size 0
	counts    bool // it counts inodes
	readOnly  bool
	attr      bool
}

// Low reports whether a login may soon be unable to write.
func (s Space) Low() bool {
	return !s.unlimited && s.Bytes < lowBytes || s.counts && s.Inodes < lowInodes
}

func (s Space) String() string {
	if !s.counts {
		return fmt.Sprintf("%d KiB free for root", s.Bytes>>10)
	}
	return fmt.Sprintf("%d KiB and %d inodes free for root", s.Bytes>>10, s.Inodes)
}

// Space asks the kernel about the file system of a directory, and writes nothing. In
// the sandbox of a unit a directory may be read-only that is not for sshd.
func (t *Target) Space(dir string) (Space, error) {
	rel, err := t.resolve(dir, true)
	if err != nil {
		return Space{}, err
	}
	d, err := t.open(rel)
	if err != nil {
		return Space{}, guest(dir, err)
	}
	defer d.Close()
	s, err := space(d)
	return s, guest(dir, err)
}

// probeName is the file that CheckRewrite makes. No account can have such a name, so the
// PAM module does not take it for a user's, and the agent removes one that is left.
const probeName = "totp-agent~probe"

// CheckRewrite reports whether root can do in dir what a login does to the user's state
// file: write a new file of size bytes beside it and rename it over the old one.
//
// The proof is a file that it makes, replaces and removes, in a directory of the same file
// system: scratch, if that is one, and otherwise dir itself. A watch on dir does not see
// the first. The error wraps ErrDiskFull, ErrNoInodes, ErrReadOnly or ErrAttr, or is the
// kernel's.
func (t *Target) CheckRewrite(dir, scratch string, size int) error {
	s, err := t.CheckReplace(dir)
	if err != nil {
		return err
	}
	where := dir
	if scratch != "" && t.SameDevice(dir, scratch) {
		where = scratch
	}
	if err := t.rewrite(where, size); err != nil {
		return fmt.Errorf("%s: %w", dir, diskError(err, s))
	}
	return nil
}

// CheckReplace is the part of CheckRewrite that writes nothing: it reports a read-only
// mount, and attributes of the directory and its files. It returns the room that is left.
func (t *Target) CheckReplace(dir string) (Space, error) {
	s, err := t.Space(dir)
	if err != nil {
		return s, err
	}
	switch {
	case s.readOnly:
		return s, fmt.Errorf("%s: %w", dir, ErrReadOnly)
	case s.attr:
		return s, fmt.Errorf("%s: %w", dir, ErrAttr)
	}
	entries, err := t.ReadDir(dir)
	if err != nil {
		return s, err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.Type().IsRegular() && t.fixed(name) {
			return s, fmt.Errorf("%s: %w", name, ErrAttr)
		}
	}
	return s, nil
}

// rewrite makes a file, replaces it as a login does, and removes it. Nothing of it needs
// to be durable: a file system that has no room says so when it is written to.
func (t *Target) rewrite(dir string, size int) error {
	quiet := *t // no part of an order that tests look at
	quiet.trace = nil
	probe := path.Join(dir, probeName)
	rel, err := t.resolve(probe, false)
	if err != nil {
		return err
	}
	for _, data := range [][]byte{nil, make([]byte, size)} {
		p, prepared := quiet.Prepare(probe, data, 0o400)
		if err = prepared; err == nil {
			err = p.Commit()
		}
		if err != nil {
			break
		}
	}
	root, rel := t.at(rel)
	if gone := root.Remove(rel); !errors.Is(gone, fs.ErrNotExist) { // another probe was faster
		err = errors.Join(err, guest(probe, gone))
	}
	return err
}

// diskError names the kind of a disk's error, for a file system that looked like s.
func diskError(err error, s Space) error {
	switch {
	case errors.Is(err, syscall.ENOSPC) && s.counts && s.Inodes == 0:
		return ErrNoInodes
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, errQuota):
		return fmt.Errorf("%w: %w", ErrDiskFull, cause(err))
	case errors.Is(err, syscall.EROFS):
		return ErrReadOnly
	}
	return err
}

// IsDiskFault reports whether err is a disk's that takes no more, and not that of a file.
func IsDiskFault(err error) bool {
	for _, e := range []error{ErrDiskFull, ErrNoInodes, ErrReadOnly, ErrAttr, syscall.ENOSPC, syscall.EROFS, errQuota} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// cause is the kernel's word alone: the name of the probe says nothing.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func (t *Target) fixed(name string) bool {
	f, err := t.OpenRegular(name, syscall.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	return fixed(f)
}

// SameDevice reports whether two directories are on one file system.
func (t *Target) SameDevice(a, b string) bool {
	var devs [2]uint64
	for i, name := range []string{a, b} {
		rel, err := t.resolve(name, true)
		if err != nil {
			return false
		}
		d, err := t.open(rel)
		if err != nil {
			return false
		}
		dev, err := device(d)
		if d.Close(); err != nil {
			return false
		}
		devs[i] = dev
	}
	return devs[0] == devs[1]
}
