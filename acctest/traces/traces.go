// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package traces looks in the files of an image for what the machine that was built or
// used for it has left there. Its lists are written down independently of the agent
// that removes the files.
package traces

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrTrace means that an image tells of the machine that it was built on.
var ErrTrace = errors.New("a trace of the build")

// These are patterns as [filepath.Match] takes them, below the top of a disk. They
// are written down here anew, and not taken from the agent that removes the files.
var (
	// No file has such a name.
	nowhere = []string{
		"var/lib/systemd/random-seed", "var/lib/urandom/random-seed",
		"root/.*history", "home/*/.*history", "root/.lesshst", "home/*/.lesshst", "root/.viminfo", "home/*/.viminfo", "root/.wget-hsts", "home/*/.wget-hsts",
		"etc/passwd-", "etc/shadow-", "etc/group-", "etc/gshadow-", "etc/subuid-", "etc/subgid-",
		"var/lib/NetworkManager/*.lease", "var/lib/dhcpcd*/*.lease*",
		"var/cache/apt/*.bin", "var/cache/apt/archives/*.deb", "var/cache/apt/archives/partial/*.deb",
	}
	// No file is below such a directory.
	bare = []string{
		"var/lib/dhcp", "var/lib/dhclient", "var/lib/systemd/network", "run/systemd/netif",
		"var/log/journal", "run/log/journal",
		"var/lib/apt/lists",
		"tmp", "var/tmp",
	}
	// No file below such a directory has anything in it.
	blank = []string{"var/log"}
)

// Find looks below a directory, which holds the files of a disk. Its error wraps
// [ErrTrace] and names every trace.
func Find(files string) error {
	// A search of nothing proves nothing.
	_, err := os.Stat(filepath.Join(files, "etc/passwd"))
	errs := []error{err}
	seen := map[string]bool{}
	found := func(name string) {
		if !seen[name] {
			errs = append(errs, fmt.Errorf("%w: %s", ErrTrace, strings.TrimPrefix(name, files)))
		}
		seen[name] = true
	}
	for _, pattern := range nowhere {
		names, err := filepath.Glob(filepath.Join(files, pattern))
		errs = append(errs, err)
		for _, name := range names {
			found(name)
		}
	}
	below := func(dirs []string, bad func(fs.FileInfo) bool) {
		for _, dir := range dirs {
			err := filepath.WalkDir(filepath.Join(files, dir), func(name string, e fs.DirEntry, err error) error {
				if err != nil || e.IsDir() {
					return err
				}
				info, err := e.Info()
				if err == nil && bad(info) {
					found(name)
				}
				return err
			})
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	below(bare, func(fs.FileInfo) bool { return true })
	below(blank, func(i fs.FileInfo) bool { return i.Mode().IsRegular() && i.Size() > 0 })
	return errors.Join(errs...)
}
