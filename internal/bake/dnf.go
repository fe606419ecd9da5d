// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// dnfPatience is how long dnf may take. It waits for another one's lock without a
// limit of its own.
var dnfPatience = 15 * time.Minute

const epelPackage = "epel-release"

// dnf installs packages, and EPEL ahead of them where that is what has the PAM
// module and no repository has it so far. It returns what was installed.
func (b *baker) dnf(ctx context.Context, names []string) ([]string, error) {
	f := b.facts
	if !b.t.IsRegular(target.DNF) {
		return nil, fmt.Errorf("%s: %w, and there is no %s; install it before the bake, and set packages to %q",
			strings.Join(names, ", "), ErrPackage, target.DNF, policy.PackagesPresent)
	}
	err := b.dnfInstall(ctx, names...)
	if err == nil || !f.epel || !noMatch(err, f.pamPackage) {
		return names, err
	}
	if _, installed := f.rpmVersions(ctx, b.t, epelPackage)[epelPackage]; installed {
		return nil, fmt.Errorf("%s: %w: %s is installed, and no enabled repository has the package: %w; enable the repository epel, or install the package before the bake",
			f.pamPackage, ErrPackage, epelPackage, err)
	}
	if err := b.dnfInstall(ctx, epelPackage); noMatch(err, epelPackage) {
		major, _, _ := strings.Cut(f.versionID, ".")
		return nil, fmt.Errorf("%s: %w: it is in EPEL, which is not enabled here, and no repository has %s: %w; enable EPEL before the bake: dnf install https://dl.fedoraproject.org/pub/epel/epel-release-latest-%s.noarch.rpm",
			f.pamPackage, ErrPackage, epelPackage, err, major)
	} else if err != nil {
		return nil, err
	}
	return append(slices.Clone(names), epelPackage), b.dnfInstall(ctx, names...)
}

func (b *baker) dnfInstall(ctx context.Context, names ...string) error {
	limited, cancel := context.WithTimeout(ctx, dnfPatience)
	defer cancel()
	_, err := b.t.Run(limited, append([]string{target.DNF, "-q", "-y", "install", "--setopt=install_weak_deps=False"}, names...)...)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%s: dnf did not end within %s; is another package manager at work? %w", strings.Join(names, ", "), dnfPatience, err)
	}
	return err
}

// noMatch tells whether dnf failed since no repository has a package. dnf 4 and 5
// say it in different words.
func noMatch(err error, name string) bool {
	ce, ok := errors.AsType[*target.CommandError](err)
	return ok && (strings.Contains(ce.Stderr, "No match for argument: "+name) ||
		strings.Contains(ce.Stderr, "Unable to find a match:") && strings.Contains(ce.Stderr, name))
}

// rpmVersions are the versions of the packages that are installed.
func (f *facts) rpmVersions(ctx context.Context, t *target.Target, names ...string) map[string]string {
	vs := map[string]string{}
	// Of one that is not installed it says so in words, and fails in the end.
	out, _ := t.Run(ctx, append([]string{target.RPM, "-q", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\\n"}, names...)...)
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) == 2 && slices.Contains(names, fields[0]) {
			vs[fields[0]] = fields[1]
		}
	}
	return vs
}
