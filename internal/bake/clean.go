// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"path"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Clean removes the agent's own state of this machine, which no image may
// have: PAM state files with their secrets, envelopes, receipts, status, notice
// and the layers that this machine's cloud-init wrote, with their token. What
// bake put there stays. A second Clean finds nothing to do.
func Clean(ctx context.Context, t *target.Target) error {
	if !t.Exists(target.StateDir) && !t.Exists(target.PAMStateDir) {
		return nil // never baked
	}
	if err := t.Mkdir(target.StateDir, 0o700); err != nil {
		return err
	}
	unlock, err := t.Lock(target.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	errs := []error{
		empty(t, target.PAMStateDir, ""), // the secrets first
		empty(t, target.StateDir, target.Report),
		empty(t, target.RunDir, ""),
	}
	for _, layer := range instanceLayers(t) {
		errs = append(errs, missingIsFine(t.Remove(layer)))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// empty removes what is in a directory, but for one file.
func empty(t *target.Target, dir, keep string) error {
	entries, err := t.ReadDir(dir)
	errs := []error{missingIsFine(err)}
	for _, e := range entries {
		if p := path.Join(dir, e.Name()); p != keep {
			errs = append(errs, t.RemoveAll(p))
		}
	}
	return errors.Join(errs...)
}

// instanceLayers are the policy layers of all instances that this disk has
// been.
func instanceLayers(t *target.Target) []string {
	entries, err := t.ReadDir(target.CloudInstances)
	if err != nil {
		return nil
	}
	var layers []string
	for _, e := range entries {
		for _, layer := range []string{target.VendorPolicy, target.InstancePolicy} {
			if p := path.Join(target.CloudInstances, e.Name(), path.Base(layer)); t.Exists(p) {
				layers = append(layers, p)
			}
		}
	}
	return layers
}
