// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// errExists means that another envelope of that name has been stored.
var errExists = errors.New("another envelope of that name is there")

const tmpPrefix = ".tmp-"

// store is the directory of the envelopes.
type store struct {
	dir    string
	write  func(f *os.File, data []byte) error
	groups group
}

func newStore(dir string, write func(*os.File, []byte) error) *store {
	return &store{dir: dir, write: write, groups: group{
		syncFiles: syncFiles,
		syncDirs:  syncDirs,
		root:      filepath.Clean(dir),
	}}
}

// put stores data under name, durably. fresh is false if the very same had
// been stored before. The name may begin with a directory, CLIENT/FILE, which
// is made if it is not there. Calls at the same time share what it costs to
// bring them to the disk.
func (s *store) put(name string, data []byte) (fresh bool, err error) {
	final := filepath.Join(s.dir, name)
	if err := s.subdirectory(final); err != nil {
		return false, err
	}
	there, err := compare(final, data)
	if err != nil {
		return false, err
	}
	if there {
		// Whoever stored it may have been stopped before its name was durable.
		return false, s.groups.commit(&entry{final: final})
	}
	f, err := os.CreateTemp(s.dir, tmpPrefix+"*") // mode 0600, O_EXCL
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := s.write(f, data); err != nil {
		return false, err
	}
	err = s.groups.commit(&entry{final: final, file: f})
	if errors.Is(err, fs.ErrExist) {
		_, err := compare(final, data)
		return false, err
	}
	return err == nil, err
}

// subdirectory makes the directory of a file, if that is not the store's own.
func (s *store) subdirectory(file string) error {
	dir := filepath.Dir(file)
	if dir == filepath.Clean(s.dir) {
		return nil
	}
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err == nil && (!fi.IsDir() || !ours(fi)) {
		err = fmt.Errorf("directory %q has mode %v: %w", dir, fi.Mode(), ErrDir)
	}
	return err
}

// count returns how many envelopes a client has here.
func (s *store) count(client string) (int, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, client))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return len(entries), err
}

// compare tells whether the file is there with this content. With other content
// the error is errExists.
func compare(file string, data []byte) (there bool, err error) {
	fi, err := os.Lstat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > frame.MaxPayload {
		return false, errExists
	}
	old, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(old, data) {
		return false, errExists
	}
	return true, nil
}

func writeAll(f *os.File, data []byte) error {
	_, err := f.Write(data)
	return err
}

// makeDir makes what is missing of a directory. The name of each one made is
// durable: an envelope is lost with any of them.
func makeDir(dir string, sync func(dir string) error) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	if err := makeDir(parent, sync); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return sync(parent)
}

// prepare makes the directory, or checks the one that is there.
func prepare(dir string, sync func(dir string) error) error {
	if err := makeDir(filepath.Clean(dir), sync); err != nil {
		return err
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() || !ours(fi) {
		return fmt.Errorf("directory %q has mode %v: %w", dir, fi.Mode(), ErrDir)
	}
	return nil
}
