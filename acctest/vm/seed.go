// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"context"
	"os"
	"path/filepath"
)

// Seed is what a NoCloud datasource gives an instance.
type Seed struct {
	InstanceID string
	Hostname   string
	UserData   string // with its first line, "#cloud-config"

	ISO string // file: a CD image that others have made, in place of all that
}

// write makes the seed's CD image.
func (s Seed) write(ctx context.Context, iso string) error {
	if s.ISO != "" {
		made, err := filepath.Abs(s.ISO)
		if err != nil {
			return err
		}
		return os.Symlink(made, iso)
	}
	dir, err := os.MkdirTemp(filepath.Dir(iso), "seed-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	files := map[string]string{
		"meta-data": "instance-id: " + s.InstanceID + "\nlocal-hostname: " + s.Hostname + "\n",
		"user-data": s.UserData,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return run(ctx, "xorriso", "-as", "mkisofs", "-quiet", "-volid", "cidata", "-joliet", "-rational-rock", "-o", iso, dir)
}
