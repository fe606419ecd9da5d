// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"fmt"
	"os"
	"path"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// ReadDisk copies the disk of an instance that is not running, and hands the copy
// to do.
func (i *Instance) ReadDisk(ctx context.Context, do func(*vm.Disk) error) error {
	dir, err := os.MkdirTemp(i.dir, "disk-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	disk, err := vm.Open(ctx, i.Disk, dir)
	if err != nil {
		return err
	}
	return do(disk)
}

// States returns the PAM states on the disk of an instance that is not running,
// by the names of their files. A file there that is no state file is an error.
func (i *Instance) States(ctx context.Context) (map[string]otp.State, error) {
	states := map[string]otp.State{}
	err := i.ReadDisk(ctx, func(d *vm.Disk) error {
		names, err := d.ReadDir(ctx, stateDir)
		if err != nil {
			return err
		}
		for _, name := range names {
			data, err := d.ReadFile(ctx, path.Join(stateDir, name))
			if err != nil {
				return err
			}
			if states[name], err = otp.ParseState(data); err != nil {
				return fmt.Errorf("%s: %w", path.Join(stateDir, name), err)
			}
		}
		return nil
	})
	return states, err
}
