// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
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
func (t *Target) WriteFrom(name string, r io.Reader, mode fs.FileMode) error {
	p, err := t.prepare(name, r, mode, true)
	if err != nil {
		return err
	}
	if err := p.Commit(); err != nil {
		return err
	}
	return t.syncDir(path.Dir(p.rel))
}

// A Prepared file is written and waits for its name.
type Prepared struct {
	t         *Target
	temp, rel string
}

// Prepare is the first part of WriteFile. Several files of one directory are
// prepared, made durable by one [Target.Sync] of its file system, committed, and
// have their names made durable by one [Target.SyncDir].
func (t *Target) Prepare(name string, data []byte, mode fs.FileMode) (*Prepared, error) {
	return t.prepare(name, bytes.NewReader(data), mode, false)
}

// Commit gives the file its name. A file that cannot have it is removed.
func (p *Prepared) Commit() error {
	err := guest("/"+p.rel, p.t.rename(p.temp, p.rel))
	if err != nil {
		return errors.Join(err, p.Discard())
	}
	p.t.note("rename", p.rel)
	return nil
}

// Discard removes the file instead.
func (p *Prepared) Discard() error {
	if err := p.t.check("remove", p.temp); err != nil {
		return guest("/"+p.temp, err)
	}
	root, temp := p.t.at(p.temp)
	return guest("/"+p.temp, root.Remove(temp))
}

func (t *Target) prepare(name string, r io.Reader, mode fs.FileMode, sync bool) (*Prepared, error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return nil, err
	}
	switch fi, err := t.lstat(rel); {
	case err == nil && !fi.Mode().IsRegular():
		return nil, &fs.PathError{Op: "write", Path: name, Err: ErrNotRegular}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, guest(name, err)
	}
	p := &Prepared{t, path.Join(path.Dir(rel), tempPrefix+rand.Text()), rel}
	// 0600 until the mode is set below: the umask cannot widen it, and nobody
	// else may read a byte of what could be a secret.
	f, err := t.create(p.temp, mode&0o600)
	if err != nil {
		return nil, guest(name, err)
	}
	if err = t.check("write", rel); err == nil {
		err = fill(f, r, mode)
	}
	t.note("write", rel)
	if err == nil && sync {
		if err = t.check("sync", rel); err == nil {
			err = f.Sync()
		}
		t.note("sync", rel)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		_ = p.Discard()
		return nil, guest(name, err)
	}
	return p, nil
}

func fill(f *os.File, r io.Reader, mode fs.FileMode) error {
	if _, err := io.Copy(f, r); err != nil {
		return err
	}
	return f.Chmod(mode)
}

// Create makes a new directory and fills it with files: mode 0700 and 0600.
// None of it is durable before a [Target.Sync] of its file system. An error
// leaves what there is; the name is the caller's to remove.
func (t *Target) Create(dir string, files map[string][]byte) error {
	rel, err := t.resolve(dir, false)
	if err != nil {
		return err
	}
	if err := t.mkdir(rel, 0o700); err != nil {
		return guest(dir, err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		data := files[name]
		f, err := t.create(path.Join(rel, name), 0o600)
		if err != nil {
			return guest(path.Join(dir, name), err)
		}
		if err = t.check("write", path.Join(rel, name)); err == nil {
			err = fill(f, bytes.NewReader(data), 0o600)
		}
		err = errors.Join(err, f.Close())
		t.note("write", path.Join(rel, name))
		if err != nil {
			return guest(path.Join(dir, name), err)
		}
	}
	return nil
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

// Mkdir makes the directory name, durably, and its parents with mode 0755 where
// they are missing. If name is there it must be a real directory, not a link,
// owned by the user the agent runs as ([ErrNotOurs] otherwise); its mode is set
// to mode.
func (t *Target) Mkdir(name string, mode fs.FileMode) error {
	made, err := t.MkdirEntry(name, mode)
	if err != nil || !made {
		return err
	}
	if err := t.SyncDir(name); err != nil {
		return err
	}
	return t.SyncDir(path.Dir(name))
}

// MkdirEntry is Mkdir without the syncs, and tells whether the directory is
// new. Several are made so, with one [Target.Sync] at their end.
func (t *Target) MkdirEntry(name string, mode fs.FileMode) (made bool, err error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return false, err
	}
	parent := path.Dir(rel)
	root, below := t.at(rel)
	fi, err := t.lstat(rel)
	made = errors.Is(err, fs.ErrNotExist)
	if made {
		if _, err := t.lstat(parent); err != nil {
			if err := t.mkdirAll(parent); err != nil {
				return false, guest(name, err)
			}
		}
		// With its mode at once: after a kill nothing would set it. The umask, which may take
		// some of it away, is 022 in the agent.
		if err := t.mkdir(rel, mode.Perm()); err != nil && !errors.Is(err, fs.ErrExist) {
			return false, guest(name, err)
		}
		fi, err = t.lstat(rel)
	}
	if err != nil {
		return false, guest(name, err)
	}
	if uid, _, ok := owner(fi); !fi.IsDir() || ok && uid != os.Geteuid() {
		return false, &fs.PathError{Op: "mkdir", Path: name, Err: ErrNotOurs}
	}
	if fi.Mode()&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != mode {
		if err := t.check("chmod", rel); err != nil {
			return false, guest(name, err)
		}
		if err := root.Chmod(below, mode); err != nil {
			return false, guest(name, err)
		}
	}
	return made, nil
}

func (t *Target) mkdir(rel string, mode fs.FileMode) error {
	if err := t.check("mkdir", rel); err != nil {
		return err
	}
	root, below := t.at(rel)
	return root.Mkdir(below, mode)
}

// mkdirAll makes what is missing of rel, whatever the umask says.
func (t *Target) mkdirAll(rel string) error {
	if parent := path.Dir(rel); parent != "." {
		if err := t.mkdirAll(parent); err != nil {
			return err
		}
	}
	err := t.check("mkdir", rel)
	if err == nil {
		err = t.root.Mkdir(rel, 0o755)
	}
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
	if err := t.Move(from, to); err != nil {
		return err
	}
	// The new name first: a crash between the two leaves the file under both
	// names at worst, never under none.
	if err := t.SyncDir(path.Dir(to)); err != nil {
		return err
	}
	if path.Dir(from) == path.Dir(to) {
		return nil
	}
	return t.SyncDir(path.Dir(from))
}

// Move is Rename without the syncs, for several moves with one [Target.SyncDir]
// of each directory at their end.
func (t *Target) Move(from, to string) error {
	relFrom, err := t.resolve(from, false)
	if err != nil {
		return err
	}
	relTo, err := t.resolve(to, false)
	if err != nil {
		return err
	}
	err = guest(to, t.rename(relFrom, relTo))
	if err == nil {
		t.note("rename", relTo)
	}
	return err
}

// Remove removes a file, link or empty directory, durably.
func (t *Target) Remove(name string) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	if err := t.check("remove", rel); err != nil {
		return guest(name, err)
	}
	root, below := t.at(rel)
	if err := root.Remove(below); err != nil {
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
	root, below := t.at(rel)
	if _, err := root.Lstat(below); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := t.check("remove", rel); err != nil {
		return guest(name, err)
	}
	if err := root.RemoveAll(below); err != nil {
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
	if err := t.check("symlink", rel); err != nil {
		return guest(name, err)
	}
	root, below := t.at(rel)
	if err := root.Symlink(dest, below); err != nil {
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
	if err := t.check("chmod", rel); err != nil {
		return guest(name, err)
	}
	root, rel := t.at(rel)
	return guest(name, root.Chmod(rel, mode))
}

// Lchown sets the owner of name itself.
func (t *Target) Lchown(name string, uid, gid int) error {
	rel, err := t.resolve(name, false)
	if err != nil {
		return err
	}
	root, rel := t.at(rel)
	return guest(name, root.Lchown(rel, uid, gid))
}

// Chtimes sets the modification time of the file that name leads to.
func (t *Target) Chtimes(name string, mtime time.Time) error {
	rel, err := t.resolve(name, true)
	if err != nil {
		return err
	}
	root, rel := t.at(rel)
	return guest(name, root.Chtimes(rel, time.Time{}, mtime))
}

// Sync makes everything durable that was written to the file systems of the
// given directories, by whomever. One that is not there is left out.
func (t *Target) Sync(dirs ...string) error {
	done := map[uint64]bool{}
	for _, name := range dirs {
		rel, err := t.resolve(name, true)
		if err != nil {
			return err
		}
		d, err := t.open(rel)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return guest(name, err)
		}
		dev, err := device(d)
		if err == nil && !done[dev] {
			if err = t.check("syncfs", rel); err == nil {
				err = os.NewSyscallError("syncfs", syncfs(d))
			}
			t.note("syncfs", rel)
			done[dev] = true
		}
		if err := errors.Join(err, d.Close()); err != nil {
			return &fs.PathError{Op: "sync", Path: name, Err: err}
		}
	}
	return nil
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
	d, err := t.open(rel)
	if err != nil {
		return guest("/"+rel, err)
	}
	defer d.Close()
	if err := t.check("syncdir", rel); err != nil {
		return guest("/"+rel, err)
	}
	err = d.Sync()
	t.note("syncdir", rel)
	if errors.Is(err, syscall.EINVAL) {
		return nil // a file system without directory sync, such as some FUSE ones
	}
	return guest("/"+rel, err)
}
