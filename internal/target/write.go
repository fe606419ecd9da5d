// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
	"time"
)

// tempPrefix begins the names of files that WriteFile has not yet renamed.
const tempPrefix = ".totp-tmp-"

// WriteFile writes name whole, atomically and durably: after a crash at any
// moment the file is the old or the new one. It is owned by the user the
// agent runs as and has exactly mode from its first byte on. A name that is
// there and is no regular file, a symbolic link say, is refused.
func (t *Target) WriteFile(name string, data []byte, mode fs.FileMode) error {
	return t.WriteFrom(name, bytes.NewReader(data), mode)
}

// WriteFrom is WriteFile for content that is too large to be held in memory.
func (t *Target) WriteFrom(name string, r io.Reader, mode fs.FileMode) (err error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	switch fi, err := t.root.Lstat(rel); {
	case err == nil && !fi.Mode().IsRegular():
		return &fs.PathError{Op: "write", Path: name, Err: ErrNotRegular}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return guest(name, err)
	}
	temp := path.Join(path.Dir(rel), tempPrefix+rand.Text())
	// 0600 until the mode is set below: the umask cannot widen it, and nobody
	// else may read a byte of what could be a secret.
	f, err := t.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode&0o600)
	if err != nil {
		return guest(name, err)
	}
	defer func() {
		if err != nil {
			t.root.Remove(temp)
		}
	}()
	if err := fill(f, r, mode); err != nil {
		return guest(name, err)
	}
	if err := t.root.Rename(temp, rel); err != nil {
		return guest(name, err)
	}
	return t.syncDir(path.Dir(rel))
}

func fill(f *os.File, r io.Reader, mode fs.FileMode) error {
	_, err := io.Copy(f, r)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Create makes a new directory and fills it with files: mode 0700 and 0600,
// all of it durable but the directory's own entry, which becomes so by the
// [Target.Rename] that gives it its real name. One sync for the whole instead
// of several for each file makes a difference at boot. An error leaves what
// there is; the name is the caller's to remove.
func (t *Target) Create(dir string, files map[string][]byte) error {
	rel, err := t.resolve(dir, false)
	if err != nil {
		return err
	}
	if err := t.root.Mkdir(rel, 0o700); err != nil {
		return guest(dir, err)
	}
	for name, data := range files {
		f, err := t.root.OpenFile(path.Join(rel, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return guest(path.Join(dir, name), err)
		}
		if err := fill(f, bytes.NewReader(data), 0o600); err != nil {
			return guest(path.Join(dir, name), err)
		}
	}
	return t.syncDir(rel)
}

// Sweep removes what a WriteFile into dir left behind when the machine lost
// its power half way. The caller holds the lock that keeps other writers out.
func (t *Target) Sweep(dir string) error {
	es, err := t.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			err = errors.Join(err, t.Remove(path.Join(dir, e.Name())))
		}
	}
	return err
}

// Mkdir makes the directory name, and its parents with mode 0755 where they
// are missing. If name is there it must be a real directory, not a link, owned
// by the user the agent runs as ([ErrNotOurs] otherwise); its mode is set to
// mode.
func (t *Target) Mkdir(name string, mode fs.FileMode) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	parent := path.Dir(rel)
	if _, err := t.root.Stat(parent); err != nil {
		if err := t.mkdirAll(parent); err != nil {
			return guest(name, err)
		}
	}
	err = t.root.Mkdir(rel, mode&0o700)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return guest(name, err)
	}
	fi, err := t.root.Lstat(rel)
	if err != nil {
		return guest(name, err)
	}
	if uid, _, ok := owner(fi); !fi.IsDir() || ok && uid != os.Geteuid() {
		return &fs.PathError{Op: "mkdir", Path: name, Err: ErrNotOurs}
	}
	if fi.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != mode {
		if err := t.root.Chmod(rel, mode); err != nil {
			return guest(name, err)
		}
	}
	if !made {
		return nil
	}
	if err := t.syncDir(rel); err != nil {
		return err
	}
	return t.syncDir(parent)
}

// mkdirAll makes what is missing of rel, whatever the umask says.
func (t *Target) mkdirAll(rel string) error {
	if parent := path.Dir(rel); parent != "." {
		if err := t.mkdirAll(parent); err != nil {
			return err
		}
	}
	err := t.root.Mkdir(rel, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := t.root.Chmod(rel, 0o755); err != nil {
		return err
	}
	return t.syncDir(path.Dir(rel))
}

// Rename moves a file or directory to a new name in its file system, durably
// on both ends. A file of the new name is replaced.
func (t *Target) Rename(from, to string) error {
	relFrom, err := t.resolve(from, false)
	if err != nil {
		return err
	}
	relTo, err := t.resolve(to, false)
	if err != nil {
		return err
	}
	if err := t.root.Rename(relFrom, relTo); err != nil {
		return guest(to, err)
	}
	// The new name first: a crash between the two leaves the file under both
	// names at worst, never under none.
	if err := t.syncDir(path.Dir(relTo)); err != nil {
		return err
	}
	if path.Dir(relFrom) == path.Dir(relTo) {
		return nil
	}
	return t.syncDir(path.Dir(relFrom))
}

// Remove removes a file, link or empty directory, durably.
func (t *Target) Remove(name string) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	if err := t.root.Remove(rel); err != nil {
		return guest(name, err)
	}
	return t.syncDir(path.Dir(rel))
}

// RemoveAll removes name and everything below it, durably; a name that is not
// there is no error.
func (t *Target) RemoveAll(name string) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	if _, err := t.root.Lstat(rel); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := t.root.RemoveAll(rel); err != nil {
		return guest(name, err)
	}
	return t.syncDir(path.Dir(rel))
}

// Symlink makes name a symbolic link to dest, which is stored as it is given.
func (t *Target) Symlink(dest, name string) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	if err := t.root.Symlink(dest, rel); err != nil {
		return guest(name, err)
	}
	return t.syncDir(path.Dir(rel))
}

// Chmod sets the mode of the file that name leads to.
func (t *Target) Chmod(name string, mode fs.FileMode) error {
	rel, err := t.resolve(name, true)
	if err != nil {
		return err
	}
	return guest(name, t.root.Chmod(rel, mode))
}

// Lchown sets the owner of name itself.
func (t *Target) Lchown(name string, uid, gid int) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	return guest(name, t.root.Lchown(rel, uid, gid))
}

// Chtimes sets the modification time of the file that name leads to.
func (t *Target) Chtimes(name string, mtime time.Time) error {
	rel, err := t.resolve(name, true)
	if err != nil {
		return err
	}
	return guest(name, t.root.Chtimes(rel, time.Time{}, mtime))
}

// Sync makes everything durable that has been written to the file system of
// the root, by whomever.
func (t *Target) Sync() error {
	d, err := t.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(syncfs(d), d.Close())
}

// SyncDir makes the entries of a directory durable.
func (t *Target) SyncDir(name string) error {
	rel, err := t.resolve(name, true)
	if err != nil {
		return err
	}
	return t.syncDir(rel)
}

func (t *Target) syncDir(rel string) error {
	d, err := t.root.Open(rel)
	if err != nil {
		return guest("/"+rel, err)
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		return nil // a file system without directory sync, such as some FUSE ones
	}
	return guest("/"+rel, err)
}
