// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/traces"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
)

// CheckImage looks from outside whether the image that was built holds something
// that no image may hold: the agent's own look, over the disk's files, and one that
// owes nothing to it.
func (l *Lab) CheckImage(ctx context.Context) error {
	dir, err := os.MkdirTemp(l.Work, "image-files-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk, err := vm.Open(ctx, l.Image, dir)
	if err != nil {
		return err
	}
	files := filepath.Join(dir, "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		return err
	}
	if err := disk.Extract(ctx, files); err != nil {
		return err
	}
	return errors.Join(traces.Find(files),
		run(ctx, l.Work, filepath.Join(l.Module, "bin", "totp-agent-linux-"+runtime.GOARCH), "clean", "--check", "--root", files))
}
