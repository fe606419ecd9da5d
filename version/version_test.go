// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package version_test

import (
	"regexp"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

func TestString(t *testing.T) {
	v, p, m := version.Version, version.VersionPrerelease, version.VersionMetadata
	defer func() { version.Version, version.VersionPrerelease, version.VersionMetadata = v, p, m }()

	for _, tt := range []struct{ version, prerelease, metadata, want string }{
		{"1.2.3", "", "", "1.2.3"},
		{"1.2.3", "dev", "", "1.2.3-dev"},
		{"1.2.3", "", "abc", "1.2.3+abc"},
		{"1.2.3", "dev", "abc", "1.2.3-dev+abc"},
	} {
		version.Version, version.VersionPrerelease, version.VersionMetadata = tt.version, tt.prerelease, tt.metadata
		if got := version.String(); got != tt.want {
			t.Errorf("String() = %q, want %q", got, tt.want)
		}
	}
}

// Packer refuses a plugin whose version is not three numbers, and release file
// names are made from it.
func TestVersionIsThreeNumbers(t *testing.T) {
	if !regexp.MustCompile(`^(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}$`).MatchString(version.Version) {
		t.Errorf("Version = %q, want three numbers", version.Version)
	}
	if p := version.VersionPrerelease; p != "" && p != "dev" {
		t.Errorf("VersionPrerelease = %q: packer plugins install takes only the empty one and dev", p)
	}
}
