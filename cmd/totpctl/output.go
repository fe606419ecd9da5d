// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// checkNew refuses a name that exists, before anything has been asked or opened.
// What decides is the O_EXCL of writeNew.
func checkNew(name string) error {
	if name == "" || name == "-" {
		return nil
	}
	if _, err := os.Lstat(name); err == nil {
		return existsError(name)
	}
	return nil
}

func existsError(name string) error {
	return withHints(fmt.Errorf("file %q: exists already, and is not overwritten", name),
		"remove it first, or choose another name")
}

// writeNew writes a new file that only its owner can read, and makes it durable.
// A file it cannot finish it removes.
func writeNew(name string, data []byte) error { return writeNewMode(name, data, 0o600) }

// writeNewMode is writeNew for what others may read as well.
func writeNewMode(name string, data []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrExist) {
		return existsError(name)
	}
	if err != nil {
		return fileError(name, err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(name)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return fileError(name, err)
	}
	if err := f.Sync(); err != nil {
		return fileError(name, err)
	}
	if err := f.Close(); err != nil {
		return fileError(name, err)
	}
	syncDir(filepath.Dir(name))
	return nil
}

// syncDir makes a new name durable, where the system can do that.
func syncDir(dir string) {
	if runtime.GOOS == "windows" {
		return
	}
	if d, err := os.Open(dir); err == nil {
		d.Sync()
		d.Close()
	}
}

// writeStdout writes what was asked for.
func writeStdout(data []byte) error {
	if _, err := os.Stdout.Write(data); err != nil {
		return fmt.Errorf("standard output: %w", reason(err))
	}
	return nil
}
