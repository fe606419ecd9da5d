// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"fmt"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// labelled are the files and directories of ours whose SELinux labels restorecon(8)
// sets; none where there is no restorecon. What matters is the directory of the
// secrets: sshd may write where the label is var_auth_t, and nowhere else in
// /var/lib. The policy has that label for this very path.
func (p *plan) labelled(t *target.Target) []string {
	if !t.HasCommand(target.Restorecon) {
		return nil
	}
	var names []string
	for _, d := range p.dirs {
		names = append(names, d.path)
	}
	for _, name := range p.paths() {
		if name != target.Report { // it is not written yet, and in a directory of ours
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// selinux labels what the bake has made. On a system where SELinux is off,
// restorecon does nothing.
func (b *baker) selinux(ctx context.Context) (string, error) {
	names := b.plan.labelled(b.t)
	if len(names) == 0 {
		return "no restorecon here, nothing to label", nil
	}
	if err := b.t.Relabel(ctx, names...); err != nil {
		return "", err
	}
	return fmt.Sprintf("restorecon has looked at %d files and directories, %s among them", len(names), target.PAMStateDir), nil
}
