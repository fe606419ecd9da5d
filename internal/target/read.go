// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"
)

// maxRead is the largest file that ReadFile reads: none of those the agent
// wants comes near it, and a hostile one must not fill the memory.
const maxRead = 1 << 20

// ReadFile reads a regular file of at most 1 MiB. It does not block on a
// named pipe, and refuses everything that is no regular file.
func (t *Target) ReadFile(name string) ([]byte, error) {
	f, err := t.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadAll(name, f)
}

// ReadAll reads an open file as ReadFile does; name is for errors.
func ReadAll(name string, f *os.File) ([]byte, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, guest(name, err)
	}
	if !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: ErrNotRegular}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRead+1))
	if err != nil {
		return nil, guest(name, err)
	}
	if len(b) > maxRead {
		return nil, &fs.PathError{Op: "read", Path: name, Err: ErrTooLarge}
	}
	return b, nil
}

// IsFault reports whether err is a fault of the machine (EIO, EMFILE, EACCES, …) that says
// nothing about the file: it may be missing, or there and whole. A missing file, a name that
// leads nowhere and content that is refused are no faults.
func IsFault(err error) bool {
	if _, ok := errors.AsType[syscall.Errno](err); !ok {
		return false
	}
	for _, e := range []error{fs.ErrNotExist, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

// ReadDir lists a directory, sorted by name.
func (t *Target) ReadDir(name string) ([]fs.DirEntry, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	d, err := t.open(rel)
	if err != nil {
		return nil, guest(name, err)
	}
	defer d.Close()
	es, err := d.ReadDir(-1)
	slices.SortFunc(es, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return es, guest(name, err)
}

// OpenFile opens name for callers that need more than whole files: devices,
// large files. What it creates is neither atomic nor durable; WriteFile is.
func (t *Target) OpenFile(name string, flag int, mode fs.FileMode) (*os.File, error) {
	rel, err := t.resolve(name, true)
	if err != nil {
		return nil, err
	}
	if err := t.check("open", rel); err != nil {
		return nil, guest(name, err)
	}
	root, rel := t.at(rel)
	f, err := root.OpenFile(rel, flag, mode)
	return f, guest(name, err)
}

// OpenRegular opens name, which must be a regular file and no link to one, for
// reading or writing (flag is [os.O_RDONLY] or [os.O_WRONLY]). What is there
// instead is not opened, whoever puts it there and when: some devices are set
// off by that. The error is [ErrNotRegular] then.
func (t *Target) OpenRegular(name string, flag int) (*os.File, error) {
	rel, err := t.resolve(name, false)
	if err != nil {
		return nil, err
	}
	if err := t.check("open", rel); err != nil {
		return nil, guest(name, err)
	}
	root, rel := t.at(rel)
	f, err := openRegular(root, rel, flag)
	if errors.Is(err, ErrNotRegular) {
		err = &fs.PathError{Op: "open", Path: name, Err: ErrNotRegular}
	}
	return f, guest(name, err)
}
