// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"fmt"
	"maps"
	"slices"
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
	b.wanted = slices.Clone(names)
	if b.facts.epel {
		b.wanted = append(b.wanted, epelPackage)
	}
	b.had = b.facts.versions(ctx, b.t, b.wanted...)
	if !b.facts.dpkg {
		return b.dnf(ctx, names)
	}
	return names, b.aptInstall(ctx, names)
}

// stay names the packages that a bake installed which failed later on, or in the
// middle of installing: nil where there are none.
func (b *baker) stay(ctx context.Context) error {
	if b.wanted == nil {
		return nil
	}
	// The package manager is asked, since it may have failed halfway.
	now := b.facts.versions(context.WithoutCancel(ctx), b.t, b.wanted...)
	maps.DeleteFunc(now, func(name, _ string) bool { _, had := b.had[name]; return had })
	if len(now) == 0 {
		return nil
	}
	return fmt.Errorf("%s: %w; remove by hand what is not to be there", strings.Join(slices.Sorted(maps.Keys(now)), ", "), ErrPackagesStay)
}

// versions are the versions of those packages that are there, as the package
// manager has them.
func (f *facts) versions(ctx context.Context, t *target.Target, names ...string) map[string]string {
	if !f.dpkg {
		return f.rpmVersions(ctx, t, names...)
	}
	vs := map[string]string{}
	out, _ := t.Run(ctx, append([]string{target.DpkgQuery, "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n"}, names...)...)
	for line := range strings.Lines(string(out)) {
		// One that was removed has a version too, as long as its configuration is there.
		if f := strings.Fields(line); len(f) == 3 && f[2] != "config-files" && f[2] != "not-installed" {
			vs[f[0]] = f[1]
		}
	}
	return vs
}
