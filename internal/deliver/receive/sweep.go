// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// staleTime is the age from which a temporary file is that of a receiver that was killed:
// an envelope is stored within seconds. A younger one may be of another receiver.
const staleTime = 10 * time.Minute

// sweep removes what receivers that were killed have left in the directory of envelopes,
// and beside the socket, if there is one.
func sweep(dir, socket string, stale time.Duration) {
	eachStale(dir, stale, func(name string, fi fs.FileInfo) {
		if strings.HasPrefix(fi.Name(), tmpPrefix) && fi.Mode().IsRegular() {
			os.Remove(name)
		}
	})
	if socket == "" {
		return
	}
	eachStale(filepath.Dir(socket), stale, func(name string, fi fs.FileInfo) {
		digits, ok := strings.CutPrefix(fi.Name(), socketPrefix)
		if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" || !fi.IsDir() || !ours(fi) || fi.Mode().Perm()&0o077 != 0 {
			return
		}
		made := filepath.Join(name, socketName)
		if fi, err := os.Lstat(made); err == nil && fi.Mode()&fs.ModeSocket != 0 {
			os.Remove(made)
		}
		os.Remove(name) // fails if anything else is in it
	})
}

// eachStale calls f for the entries of a directory that are older than stale.
func eachStale(dir string, stale time.Duration, f func(name string, fi fs.FileInfo)) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // whoever needs the directory reports it
	}
	for _, e := range entries {
		if fi, err := e.Info(); err == nil && time.Since(fi.ModTime()) > stale {
			f(filepath.Join(dir, e.Name()), fi)
		}
	}
}

// keepSwept sweeps again and again until ctx is done: a receiver that is started right after
// it was killed finds its own files too young.
func keepSwept(ctx context.Context, dir, socket string, stale time.Duration) {
	tick := time.NewTicker(stale)
	defer tick.Stop()
	for {
		sweep(dir, socket, stale)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
