// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockTicket waits for the lock of a file, which nobody can hold who cannot open
// it. Whoever has the lock may have put another file in its place by the end; then
// that one is waited for.
func lockTicket(name string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(name, os.O_RDWR, 0) // NFS locks what can be written to only
		if err != nil {
			f, err = os.Open(name)
		}
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			f.Close()
			return nil, err
		}
		locked, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(name); err == nil && os.SameFile(locked, now) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

func flock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}
