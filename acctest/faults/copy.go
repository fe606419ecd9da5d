// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux && amd64

package faults

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// A Copy is a machine with the files of a root, for one run. What it changes goes to a
// layer of its own. The root must not be changed while it has copies.
type Copy struct {
	root *rootfs.Root
	name string // of its directory, beside the root's
}

var copies atomic.Int64

// mountScript mounts the layer over the bare root, and a second time for processes.
// redirect_dir: directories of the root can be renamed, as on a disk.
const mountScript = `
cd "$1"
mkdir "$2" && cd "$2" && mkdir upper work view root
mount -t overlay -o lowerdir=../view,upperdir=upper,workdir=work,redirect_dir=on overlay view
mount --bind view root
mount -t proc -o nosuid,nodev,noexec proc root/proc
mount --rbind ../root/dev root/dev
`

// NewCopy makes a copy of the root as it is now.
func NewCopy(root *rootfs.Root) (*Copy, error) {
	c := &Copy{root: root, name: fmt.Sprintf("copy-%d", copies.Add(1))}
	if err := c.host(mountScript); err != nil {
		return nil, err
	}
	return c, nil
}

// Close removes the copy. No process may run in it.
func (c *Copy) Close() error {
	return c.host(`cd "$1"; umount --lazy --recursive "$2/root"; umount --lazy "$2/view"; rm -rf "$2"`)
}

func (c *Copy) host(script string) error {
	cmd := c.root.HostCommand("sh", "-euc", script, "sh", filepath.Dir(c.root.Mounted()), c.name)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copy of a root: %w\n%s", err, out)
	}
	return nil
}

// inside returns a directory of the copy as programs of [rootfs.Root.HostCommand] see it.
func (c *Copy) inside(dir string) string {
	return filepath.Join(filepath.Dir(c.root.Mounted()), c.name, dir)
}

// Command returns a command that runs in the copy, as [rootfs.Root.Command] does.
func (c *Copy) Command(argv ...string) *exec.Cmd {
	cmd := c.root.HostCommand(append([]string{"chroot", c.inside("root")}, argv...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
	}
	return cmd
}

// HostCommand returns a command of this machine that finds the copy's disk at
// [Copy.Mounted].
func (c *Copy) HostCommand(argv ...string) *exec.Cmd { return c.root.HostCommand(argv...) }

// Mounted returns the directory of the copy's disk for [Copy.HostCommand].
func (c *Copy) Mounted() string { return c.inside("view") }

// Path returns where this process finds a file of the copy.
func (c *Copy) Path(name string) string {
	return filepath.Join(filepath.Dir(c.root.Dir()), c.name, "view", filepath.FromSlash(name))
}

// Layer returns the directory of the files that differ from the root's.
func (c *Copy) Layer() string {
	return filepath.Join(filepath.Dir(c.root.Dir()), c.name, "upper")
}

// Changed returns the names of the files and directories that were made or changed since
// the copy was made and are still there, in lexical order. A directory ends in a slash.
func (c *Copy) Changed() ([]string, error) {
	var all []string
	top := c.Layer()
	err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(file, top)
		if name == "" || d.Type() == fs.ModeCharDevice|fs.ModeDevice { // a removed file
			return nil
		}
		if d.IsDir() {
			name += "/"
		}
		all = append(all, name)
		return nil
	})
	return all, err
}

// Removed returns the names of the root's files that are gone in the copy.
func (c *Copy) Removed() ([]string, error) {
	var all []string
	top := c.Layer()
	err := filepath.WalkDir(top, func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Type() == fs.ModeCharDevice|fs.ModeDevice {
			if _, err := os.Lstat(c.Path(strings.TrimPrefix(file, top))); err != nil {
				all = append(all, strings.TrimPrefix(file, top))
			}
		}
		return err
	})
	return all, err
}
