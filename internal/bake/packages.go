// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// aptPatience is how long another package manager may hold its lock, as the
// timers of a machine that has just booted do.
const aptPatience = 5 * time.Minute

// aptPause is the time between two tries for a lock that apt does not wait for
// by itself.
var aptPause = 3 * time.Second

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
	present := b.Policy != nil && b.Policy.Packages == policy.PackagesPresent
	if !present { // a login goes on without it; the time step says what is not there
		missing = append(missing, b.timePackages()...)
	}
	if len(missing) == 0 {
		return "all there", nil
	}
	if present {
		return "", fmt.Errorf("%s: %w; install it before the bake, or set packages to %q",
			strings.Join(missing, ", "), ErrPackage, policy.PackagesInstall)
	}
	if err := b.apt(ctx, "update"); err != nil {
		return "", err
	}
	install := append([]string{"install", "--no-install-recommends",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"}, missing...)
	if err := b.apt(ctx, install...); err != nil {
		return "", err
	}
	if b.facts.modulePath(b.t) == "" {
		return "", fmt.Errorf("%s: %w, although apt-get says so; is %s in another directory than %s?",
			b.facts.pamPackage, ErrPackage, target.PAMModule, strings.Join(target.PAMModuleDirs[b.facts.arch], ", "))
	}
	return "installed " + strings.Join(missing, ", "), nil
}

func (b *baker) apt(ctx context.Context, args ...string) error {
	argv := append([]string{target.AptGet, "-q", "-y",
		"-o", fmt.Sprintf("DPkg::Lock::Timeout=%d", int(aptPatience.Seconds())),
		"-o", "Acquire::Retries=3"}, args...)
	for end := time.Now().Add(aptPatience); ; {
		_, err := b.t.Run(ctx, argv...)
		// update does not wait for the lock of the lists.
		ce, ok := errors.AsType[*target.CommandError](err)
		if !ok || !strings.Contains(ce.Stderr, "Could not get lock") || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(aptPause):
		}
	}
}

// packageVersions are the versions of the packages that make the login, as the
// package manager has them.
func (f *facts) packageVersions(ctx context.Context, t *target.Target) map[string]string {
	vs := map[string]string{}
	out, _ := t.Run(ctx, target.DpkgQuery, "-W", "-f", "${Package} ${Version}\n", f.pamPackage, f.sshPackage)
	for line := range strings.Lines(string(out)) {
		if name, version, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			vs[name] = version
		}
	}
	return vs
}
