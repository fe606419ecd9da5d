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

// Err reports what Space alone shows: that nothing can be written. It is nil where
// only a write can tell.
func (s Space) Err() error {
	switch {
	case s.readOnly:
		return ErrReadOnly
	case s.attr:
		return ErrAttr
	case !s.unlimited && s.Bytes == 0:
		return ErrDiskFull
	case s.counts && s.Inodes == 0:
		return ErrNoInodes
	}
	return nil
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
// The proof is a file that it makes, renames and removes, in a directory of the same file
// system: scratch, if that is one, and otherwise dir itself. Whoever watches dir sees
// nothing of the first. The error wraps ErrDiskFull, ErrNoInodes, ErrReadOnly or
// ErrAttr, or is the kernel's.
func (t *Target) CheckRewrite(dir, scratch string, size int) error {
	s, err := t.Space(dir)
	if err != nil {
		return err
	}
	if s.readOnly || s.attr {
		return fmt.Errorf("%s: %w", dir, s.Err())
	}
	entries, err := t.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if e.Type().IsRegular() && t.fixed(name) {
			return fmt.Errorf("%s: %w", name, ErrAttr)
		}
	}
	where := dir
	if scratch != "" && t.sameDevice(dir, scratch) {
		where = scratch
	}
	if err := t.rewrite(where, size); err != nil {
		return fmt.Errorf("%s: %w", dir, diskError(err, s))
	}
	return nil
}

// rewrite makes, renames and removes a file.
func (t *Target) rewrite(dir string, size int) error {
	probe := path.Join(dir, probeName)
	if err := t.WriteFile(probe, nil, 0o400); err != nil {
		return err
	}
	err := t.WriteFile(probe, make([]byte, size), 0o400)
	if gone := t.Remove(probe); !errors.Is(gone, fs.ErrNotExist) { // another probe was faster
		err = errors.Join(err, gone)
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

// sameDevice reports whether two directories are on one file system.
func (t *Target) sameDevice(a, b string) bool {
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
