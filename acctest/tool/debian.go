// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package tool

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/once"
)

// Debian returns a directory that holds what the Debian package of that name
// holds, in the version that this system would install. It is not installed:
// a service, such as a web server, is not started, and the system stays as it is.
// What the package depends on has to be there.
func Debian(ctx context.Context, cache, name string, log io.Writer) (string, error) {
	release, err := os.ReadFile("/etc/debian_version")
	if err != nil {
		return "", err
	}
	key, _, _ := strings.Cut(strings.TrimSpace(string(release)), "/") // as "12.11", or "forky/sid"
	dir := filepath.Join(cache, "tools", "debian-"+key, name)
	return dir, once.Make(dir, "the Debian package "+name, "seconds", log, func(part string) error {
		// apt-get leaves the file in its working directory.
		down, err := os.MkdirTemp(filepath.Dir(part), "down-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(down)
		download := func() error {
			cmd := exec.CommandContext(ctx, "apt-get", "--quiet", "--option", "APT::Sandbox::User=", "download", name)
			cmd.Dir = down
			return run(cmd, "apt-get download "+name)
		}
		// A new machine has no lists of packages, and old lists name what is gone.
		if err := download(); err != nil {
			if run(exec.CommandContext(ctx, "apt-get", "--quiet", "update"), "apt-get update") != nil {
				return err
			}
			if err := download(); err != nil {
				return err
			}
		}
		files, err := filepath.Glob(filepath.Join(down, "*.deb"))
		if err != nil || len(files) != 1 {
			return fmt.Errorf("apt-get download %s: left %q, %v", name, files, err)
		}
		return run(exec.CommandContext(ctx, "dpkg-deb", "--extract", files[0], part), "dpkg-deb")
	})
}
