// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/once"
)

// ErrUnavailable is what [Available] returns, wrapped, on a machine that cannot
// run the lab.
var ErrUnavailable = errors.New("the virtual machine lab cannot run here")

// Base is an image that disks are made from.
type Base struct {
	Disk   string // qcow2, one ext4 file system without partitions
	Kernel string
	Initrd string
}

// KernelArgs is the command line that boots a disk of this package.
const KernelArgs = "root=/dev/vda rw console=ttyS0 mitigations=off audit=0"

// Available returns nil where the lab can run, and otherwise an error that wraps
// [ErrUnavailable] and says what is missing.
func Available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: needs root; run it with sudo", ErrUnavailable)
	}
	for _, name := range []string{"mmdebstrap", "mke2fs", "debugfs", "e2fsck", "qemu-system-x86_64", "qemu-img", "xorriso"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: %s is not installed; run: go run ./acctest/setup testacc", ErrUnavailable, name)
		}
	}
	return nil
}

// BuildBase returns a system's base image under the directory cache, making it
// where it is not there: that takes a minute or two and needs a Debian mirror.
func BuildBase(ctx context.Context, s System, cache string, log io.Writer) (Base, error) {
	r := recipe(s, proxies(os.Environ()))
	dir := filepath.Join(cache, "vm", s.File+"-"+r.key())
	base := Base{
		Disk:   filepath.Join(dir, "disk.qcow2"),
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd"),
	}
	err := once.Make(dir, "the "+s.Name+" image with mmdebstrap", "a minute or two", log, func(part string) error { return r.make(ctx, part) })
	if err != nil {
		return Base{}, err
	}
	return base, nil
}

// make fills a new directory with the files of a [Base].
func (r imageRecipe) make(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("customize"), []byte(r.customize()), 0o755); err != nil {
		return err
	}
	root := path("root")
	if err := run(ctx, "mmdebstrap", r.args(path("customize"), root)...); err != nil {
		return err
	}
	for name, source := range map[string]string{"vmlinuz": "vmlinuz", "initrd": "initrd.img"} {
		// Links that dpkg keeps to the newest kernel; both lead into /boot.
		if err := run(ctx, "cp", "--dereference", filepath.Join(root, source), path(name)); err != nil {
			return err
		}
	}
	if err := run(ctx, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-L", "root", "-d", root, path("disk.raw"), r.Size); err != nil {
		return err
	}
	if err := run(ctx, "qemu-img", "convert", "-q", "-O", "qcow2", path("disk.raw"), path("disk.qcow2")); err != nil {
		return err
	}
	for _, name := range []string{"root", "disk.raw", "customize"} {
		if err := os.RemoveAll(path(name)); err != nil {
			return err
		}
	}
	return nil
}

func (r imageRecipe) key() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q", r.args("", ""), r.customize(), r.Size)
	return hex.EncodeToString(h.Sum(nil))[:12]
}

// run runs a tool; the error carries the end of what it printed.
func run(ctx context.Context, name string, args ...string) error {
	_, err := output(ctx, name, args...)
	return err
}

// output runs a tool and returns its standard output.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // mmdebstrap unmounts what it mounted
	cmd.WaitDelay = 20 * time.Second
	var out, complaints strings.Builder // one each: two goroutines write
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := child.Run(cmd, syscall.SIGTERM); err != nil {
		text := strings.TrimSpace(out.String() + complaints.String())
		if len(text) > 2000 {
			text = "…" + text[len(text)-2000:]
		}
		return "", fmt.Errorf("%s: %w\n%s", name, err, text)
	}
	return out.String(), nil
}
