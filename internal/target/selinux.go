// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import "context"

// Relabel gives names, and what is below them, the SELinux labels that the
// system's policy has for these paths, restorecon(8). It does nothing where there
// is no restorecon, and that does nothing where SELinux is off.
func (t *Target) Relabel(ctx context.Context, names ...string) error {
	if !t.HasCommand(Restorecon) {
		return nil
	}
	_, err := t.Run(ctx, append([]string{Restorecon, "-R"}, names...)...)
	return err
}

// SELinux tells whether the running machine has SELinux, be it enforcing or not.
func (t *Target) SELinux() bool { return t.Exists(SELinuxEnforce) }

// Label gives names an SELinux type other than the one that the policy has for
// their paths, chcon(1).
func (t *Target) Label(ctx context.Context, selinuxType string, names ...string) error {
	_, err := t.Run(ctx, append([]string{Chcon, "-t", selinuxType}, names...)...)
	return err
}
