// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"fmt"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// packages installs what is missing; where nothing is, it does not touch the
// package manager.
func (b *baker) packages(ctx context.Context) (string, error) {
	var missing []string
	if b.facts.modulePath(b.t) == "" {
		missing = append(missing, b.facts.pamPackage)
	}
	if !b.t.IsRegular(target.SSHD) {
		missing = append(missing, b.facts.sshPackage)
	}
	if b.facts.clientPackage != "" && !b.t.IsRegular(target.SSH) { // it is asked what algorithms there are
		missing = append(missing, b.facts.clientPackage)
	}
	present := b.Policy != nil && b.Policy.Packages == policy.PackagesPresent
	if !present { // a login goes on without it; the time step and check say what is not there
		missing = append(missing, b.timePackages()...)
		missing = append(missing, b.caPackages()...)
	}
	if len(missing) == 0 {
		return "all there", nil
	}
	if present {
		return "", fmt.Errorf("%s: %w; install it before the bake, or set packages to %q",
			strings.Join(missing, ", "), ErrPackage, policy.PackagesInstall)
	}
	installed, err := b.install(ctx, missing)
	if err != nil {
		return "", err
	}
	if b.facts.modulePath(b.t) == "" {
		return "", fmt.Errorf("%s: %w, although the package manager says so; is %s in another directory than %s?",
			b.facts.pamPackage, ErrPackage, target.PAMModule, strings.Join(target.PAMModuleDirs[b.facts.arch], ", "))
	}
	return "installed " + strings.Join(installed, ", "), nil
}

// install has the system's package manager install packages, and returns all that
// were asked of it.
func (b *baker) install(ctx context.Context, names []string) ([]string, error) {
	if !b.facts.dpkg {
		return b.dnf(ctx, names)
	}
	return names, b.aptInstall(ctx, names)
}

// packageVersions are the versions of the packages that make the login, as the
// package manager has them.
func (f *facts) packageVersions(ctx context.Context, t *target.Target) map[string]string {
	if !f.dpkg {
		return f.rpmVersions(ctx, t, f.pamPackage, f.sshPackage)
	}
	vs := map[string]string{}
	out, _ := t.Run(ctx, target.DpkgQuery, "-W", "-f", "${Package} ${Version}\n", f.pamPackage, f.sshPackage)
	for line := range strings.Lines(string(out)) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			vs[name] = version
		}
	}
	return vs
}
