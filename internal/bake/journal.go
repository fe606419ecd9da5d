// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A journal changes files, and can take back what it changed. It does not
// touch what is already as wanted.
//
// Each undo is registered before its change, since a change may fail after it was made:
// in the sync that follows it. So an undo first looks whether there is something to undo.
type journal struct {
	t     *target.Target
	undos []func() error // latest last
	open  []io.Closer
}

// used tells whether anything was changed.
func (j *journal) used() bool { return len(j.undos) > 0 }

// undo puts everything back, latest change first. What cannot be put back
// does not keep it from the rest.
func (j *journal) undo() error {
	var errs []error
	for len(j.undos) > 0 {
		last := len(j.undos) - 1
		errs = append(errs, j.undos[last]())
		j.undos = j.undos[:last]
	}
	return errors.Join(errs...)
}

// close forgets the originals.
func (j *journal) close() {
	for _, c := range j.open {
		c.Close()
	}
	j.open = nil
}

// write gives a file its content and mode, and tells whether that was a change.
func (j *journal) write(name string, data []byte, mode fs.FileMode) (changed bool, err error) {
	same, err := sameFile(j.t, name, data, mode)
	if same || err != nil {
		return false, err
	}
	return true, j.writeFrom(name, bytes.NewReader(data), mode)
}

// writeFrom writes a file without looking at its content.
func (j *journal) writeFrom(name string, r io.Reader, mode fs.FileMode) error {
	if err := j.parents(name); err != nil {
		return err
	}
	if err := j.keep(name); err != nil {
		return err
	}
	if err := j.t.WriteFrom(name, r, mode); err != nil {
		return fmt.Errorf("%s: %w", name, err) // which may name the temporary file only
	}
	return nil
}

// keep remembers how a file is, by an open descriptor: its content outlives
// the name, without a copy of it in memory or in another place.
func (j *journal) keep(name string) error {
	fi, err := j.t.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		j.undos = append(j.undos, func() error { return missingIsFine(j.t.Remove(name)) })
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return &fs.PathError{Op: "write", Path: name, Err: target.ErrNotRegular}
	}
	f, err := j.t.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return err
	}
	j.open = append(j.open, f)
	j.undos = append(j.undos, func() error {
		// The write that followed may have failed before it changed anything.
		if now, err := j.t.Lstat(name); err == nil && os.SameFile(fi, now) {
			return nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		if err := j.t.WriteFrom(name, f, fi.Mode().Perm()); err != nil {
			return err
		}
		if uid, gid, ok := target.Owner(fi); ok {
			if err := j.t.Lchown(name, uid, gid); err != nil {
				return err
			}
		}
		return j.t.Chtimes(name, fi.ModTime())
	})
	return nil
}

// remove removes a file or link, where there is one.
func (j *journal) remove(name string) error {
	fi, err := j.t.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case fi.Mode()&fs.ModeSymlink != 0:
		return j.unlink(name)
	}
	if err := j.keep(name); err != nil {
		return err
	}
	return j.t.Remove(name)
}

// displace makes room for a file where something else has its name: a link is
// removed, anything else renamed.
func (j *journal) displace(name string) error {
	fi, err := j.t.Lstat(name)
	switch {
	case err != nil:
		return missingIsFine(err)
	case fi.Mode().IsRegular():
		return nil
	case fi.Mode()&fs.ModeSymlink != 0:
		return j.unlink(name)
	}
	aside := asideName(j.t, name)
	j.undos = append(j.undos, func() error {
		if !j.t.Exists(aside) {
			return nil
		}
		return j.t.Rename(aside, name)
	})
	return j.t.Rename(name, aside)
}

// asideName is a free name for what is to be moved aside.
func asideName(t *target.Target, name string) string {
	aside := name + ".replaced"
	for n := 2; t.Exists(aside); n++ {
		aside = fmt.Sprintf("%s.replaced-%d", name, n)
	}
	return aside
}

// moveAside renames what is there to a name that is free.
func moveAside(t *target.Target, name string) (aside string, err error) {
	aside = asideName(t, name)
	return aside, t.Rename(name, aside)
}

// mkdir makes a directory of exactly this mode.
func (j *journal) mkdir(name string, mode fs.FileMode) error {
	if err := j.parents(name); err != nil {
		return err
	}
	fi, err := j.t.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		j.undos = append(j.undos, func() error { return missingIsFine(j.t.Remove(name)) })
	case err != nil:
		return err
	case fi.IsDir() && fi.Mode().Perm() != mode:
		j.undos = append(j.undos, func() error { return j.t.Chmod(name, fi.Mode()) })
	}
	return j.t.Mkdir(name, mode)
}

// parents makes the directories above name that are missing, and leaves those
// that are there alone.
func (j *journal) parents(name string) error {
	parent := path.Dir(name)
	if j.t.IsDir(parent) {
		return nil
	}
	return j.mkdir(parent, 0o755)
}

// symlink makes name a link to dest. Another link of that name is replaced,
// anything else refused.
func (j *journal) symlink(dest, name string) (changed bool, err error) {
	old, err := j.t.Readlink(name)
	switch {
	case err == nil && old == dest:
		return false, nil
	case err == nil:
		j.keepLink(name, old)
		if err := j.t.Remove(name); err != nil {
			return false, err
		}
	case errors.Is(err, syscall.EINVAL):
		return false, fmt.Errorf("%s: %w: %w; remove what is there", name, ErrUnit, fs.ErrExist)
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	default:
		if err := j.parents(name); err != nil {
			return false, err
		}
		j.keepLink(name, "")
	}
	return true, j.t.Symlink(dest, name)
}

// keepLink remembers where a link leads; "": there is none.
func (j *journal) keepLink(name, dest string) {
	j.undos = append(j.undos, func() error {
		now, err := j.t.Readlink(name)
		if err == nil && now != dest {
			err = j.t.Remove(name)
		}
		if missingIsFine(err) != nil || now == dest || dest == "" {
			return missingIsFine(err)
		}
		return j.t.Symlink(dest, name)
	})
}

// unlink removes a link, and the directory that it was alone in.
func (j *journal) unlink(name string) error {
	dest, err := j.t.Readlink(name)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	fi, err := j.t.Lstat(dir)
	if err != nil {
		return err
	}
	j.keepLink(name, dest)
	if err := j.t.Remove(name); err != nil {
		return err
	}
	if entries, err := j.t.ReadDir(dir); err != nil || len(entries) > 0 {
		return err
	}
	j.undos = append(j.undos, func() error {
		if j.t.IsDir(dir) {
			return nil
		}
		return j.t.Mkdir(dir, fi.Mode().Perm())
	})
	return j.t.Remove(dir)
}

// sameFile tells whether a file of ours is as wanted.
func sameFile(t *target.Target, name string, data []byte, mode fs.FileMode) (bool, error) {
	fi, err := t.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !fi.Mode().IsRegular() || fi.Mode().Perm() != mode || !owned(fi) {
		return false, nil
	}
	now, err := t.ReadFile(name)
	if errors.Is(err, target.ErrTooLarge) {
		return false, nil
	}
	return err == nil && bytes.Equal(now, data), err
}

// owned tells whether a file belongs to the user the agent runs as: root,
// outside of tests.
func owned(fi fs.FileInfo) bool {
	uid, _, ok := target.Owner(fi)
	return ok && uid == os.Geteuid()
}

func missingIsFine(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
