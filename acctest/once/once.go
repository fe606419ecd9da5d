// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package once

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Make makes a file or directory by means of do, unless it is there. do is
// given a name beside it, at which nothing is, and leaves what it has made there. Of
// several programs that want the same, one makes it and the others wait. log
// is told what, with how long it may take, and how long it took.
func Make(name, what, may string, log io.Writer, do func(part string) error) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	lock, err := os.OpenFile(name+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("%s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(name); err == nil {
		return nil
	}
	fmt.Fprintf(log, "making %s (%s, once)\n", what, may)
	start := time.Now()
	part := name + ".part"
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	defer os.RemoveAll(part)
	if err := do(part); err != nil {
		return err
	}
	if err := os.Rename(part, name); err != nil {
		return err
	}
	fmt.Fprintf(log, "made %s in %s\n", name, time.Since(start).Round(time.Second))
	return nil
}
