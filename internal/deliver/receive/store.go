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
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// errExists means that another envelope of that name has been stored.
var errExists = errors.New("another envelope of that name is there")

const (
	tmpPrefix = ".tmp-"
	staleTime = time.Hour
)

type store struct {
	dir   string
	write func(f *os.File, data []byte) error
}

// put stores data under name, durably. fresh is false if the very same had
// been stored before.
func (s store) put(name string, data []byte) (fresh bool, err error) {
	final := filepath.Join(s.dir, name)
	if there, err := s.compare(final, data); there || err != nil {
		return false, err
	}
	f, err := os.CreateTemp(s.dir, tmpPrefix+"*") // mode 0600, O_EXCL
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	err = s.write(f, data)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	// A link fails where a rename would overwrite.
	err = os.Link(f.Name(), final)
	if errors.Is(err, fs.ErrExist) {
		_, err := s.compare(final, data)
		return false, err
	}
	if err != nil {
		return false, err
	}
	return true, syncDir(s.dir)
}

// compare tells whether the file is there with this content, durably. With
// other content the error is errExists.
func (s store) compare(file string, data []byte) (there bool, err error) {
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
	// Whoever stored it may have been stopped before this.
	return true, syncDir(s.dir)
}

func writeSync(f *os.File, data []byte) error {
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

// prepare makes the directory, or checks the one that is there, and removes
// what a receiver that was killed left in it.
func prepare(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if err := syncDir(filepath.Dir(filepath.Clean(dir))); err != nil {
			return err
		}
	}
	fi, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() || !ours(fi) {
		return fmt.Errorf("directory %q has mode %v: %w", dir, fi.Mode(), ErrDir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		// A fresh one may be of another receiver that is at work.
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > staleTime {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}
