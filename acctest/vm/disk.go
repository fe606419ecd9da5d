// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
)

// ErrDisk means that a disk could not be read as what it should be.
var ErrDisk = errors.New("not a readable ext4 disk")

// Disk is a copy of a machine's disk, for reading.
type Disk struct {
	Raw string // file: the whole disk, byte for byte

	view string // file: the same, with the file system's journal replayed
}

// NewDisk makes a disk like another one: the base image's, or the one that
// Packer has built. It holds only what is written to it; the other one must not change.
func NewDisk(ctx context.Context, like, disk string) error {
	like, err := filepath.Abs(like)
	if err != nil {
		return err
	}
	return run(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", like, disk)
}

// Open copies a disk that no machine runs from into the existing directory dir.
func Open(ctx context.Context, disk, dir string) (*Disk, error) {
	raw := filepath.Join(dir, "disk.raw")
	if err := run(ctx, "qemu-img", "convert", "-q", "-O", "raw", disk, raw); err != nil {
		return nil, err
	}
	return openRaw(ctx, raw, filepath.Join(dir, "disk.view"))
}

func openRaw(ctx context.Context, raw, view string) (*Disk, error) {
	d := &Disk{Raw: raw, view: view}
	// After a power cut files are what they are once the journal is replayed. The
	// raw disk stays as it was: a journal is a place to look into as well.
	if err := run(ctx, "cp", "--sparse=always", d.Raw, d.view); err != nil {
		return nil, err
	}
	err := run(ctx, "e2fsck", "-y", "-E", "journal_only", d.view)
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 { // errors corrected
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisk, err)
	}
	return d, nil
}

// Extract writes every directory, file and link of the disk below the existing
// directory dir.
func (d *Disk) Extract(ctx context.Context, dir string) error {
	_, err := d.debugfs(ctx, dir, "rdump / .")
	return err
}

// ReadFile returns a file's contents. The error wraps [os.ErrNotExist] where
// there is none.
func (d *Disk) ReadFile(ctx context.Context, name string) ([]byte, error) {
	out, err := d.debugfs(ctx, "", "cat "+quote(name))
	return []byte(out), err
}

// ReadDir returns the names in a directory, sorted, without . and ...
func (d *Disk) ReadDir(ctx context.Context, name string) ([]string, error) {
	out, err := d.debugfs(ctx, "", "ls -p "+quote(name))
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(out) {
		// /inode/mode/uid/gid/name/size/
		f := strings.Split(strings.TrimSpace(line), "/")
		if len(f) != 8 || f[1] == "0" || f[5] == "." || f[5] == ".." {
			continue
		}
		names = append(names, f[5])
	}
	slices.Sort(names)
	return names, nil
}

// BlockSize returns the size of the file system's blocks in bytes.
func (d *Disk) BlockSize() (int64, error) {
	f, err := os.Open(d.Raw)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// The superblock begins at byte 1024; see ext4's documentation in Linux,
	// filesystems/ext4/super.rst.
	super := make([]byte, 0x3a)
	if _, err := f.ReadAt(super, 1024); err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint16(super[0x38:]) != 0xef53 {
		return 0, fmt.Errorf("%s: %w: no superblock", d.Raw, ErrDisk)
	}
	return 1024 << binary.LittleEndian.Uint32(super[0x18:]), nil
}

// debugfs runs one command of debugfs(8) in a working directory.
func (d *Disk) debugfs(ctx context.Context, dir, command string) (string, error) {
	cmd := exec.CommandContext(ctx, "debugfs", "-R", command, d.view)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DEBUGFS_PAGER=__none__", "PAGER=cat")
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := child.Run(cmd, syscall.SIGTERM); err != nil {
		return "", fmt.Errorf("debugfs: %w\n%s", err, complaints.String())
	}
	// It says what went wrong on stderr, below its own name, and exits with 0.
	for line := range strings.Lines(complaints.String()) {
		switch line = strings.TrimSpace(line); {
		case line == "" || strings.HasPrefix(line, "debugfs 1."):
		case strings.Contains(line, "File not found by ext2_lookup"):
			return "", fmt.Errorf("%s: %w", command, os.ErrNotExist)
		default:
			return "", fmt.Errorf("%s: %w: %s", command, ErrDisk, line)
		}
	}
	return out.String(), nil
}

// quote writes a name for a command of debugfs.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
