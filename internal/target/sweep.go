// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"time"
)

// SweepOlder is [Target.Sweep] for a directory that other programs of the agent may
// write to at the same moment: it leaves files that are younger than age.
func (t *Target) SweepOlder(dir string, age time.Duration) error {
	entries, err := t.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tempPrefix) && e.Name() != probeName || !e.Type().IsRegular() {
			continue
		}
		info, err := t.Lstat(path.Join(dir, e.Name()))
		if err != nil || time.Since(info.ModTime()) < age {
			continue // renamed meanwhile, or in use
		}
		if err := t.Remove(path.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
