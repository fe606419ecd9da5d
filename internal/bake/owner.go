// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// purge is the remedy for a file of another package that changes how sshd starts, such
// as that of ec2-instance-connect; for one of the administrator's it is rest.
func (f *facts) purge(t *target.Target, file, rest string) string {
	vendor := strings.HasPrefix(file, "/usr/lib/") || strings.HasPrefix(file, "/lib/")
	pkg := ""
	switch {
	case f.dpkg:
		pkg = dpkgOwner(t, file)
	case vendor:
		pkg = "$(rpm -qf --queryformat '%{NAME}' " + file + ")"
	}
	switch {
	case pkg == "":
		return rest
	case f.dpkg:
		return "it is of the package " + pkg + "; run: apt-get purge " + pkg
	}
	return "it is of a package; run: dnf remove " + pkg
}

// dpkgOwner is the package that has installed a file; "": none.
func dpkgOwner(t *target.Target, file string) string {
	entries, err := t.ReadDir(target.DpkgInfo)
	if err != nil {
		return ""
	}
	// /lib leads to /usr/lib, and packages name either.
	names := []string{file, "/usr" + file, strings.TrimPrefix(file, "/usr")}
	for _, e := range entries {
		pkg, ok := strings.CutSuffix(e.Name(), ".list")
		if !ok {
			continue
		}
		b, err := t.ReadFile(path.Join(target.DpkgInfo, e.Name()))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if slices.Contains(names, strings.TrimSuffix(line, "\n")) {
				pkg, _, _ = strings.Cut(pkg, ":") // the architecture
				return pkg
			}
		}
	}
	return ""
}
