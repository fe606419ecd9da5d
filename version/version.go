// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package version holds the version that the plugin, the agent and totpctl
// share. It is plain text, so that programs without the Packer SDK can import
// it; main.go makes the SDK's version object of it.
//
// The variables are set at link time, as in every Packer plugin:
//
//	-ldflags "-X github.com/packer-plugin-totp/packer-plugin-totp/version.VersionPrerelease="
package version

var (
	// Version is the semantic version, three numbers without a leading v.
	Version = "0.1.0"

	// VersionPrerelease is "dev" in a working copy and empty in a release. Packer
	// installs no other prerelease than these two.
	VersionPrerelease = "dev"

	// VersionMetadata is build metadata: it is shown and never compared.
	VersionMetadata = ""
)

// String returns the whole version, such as 0.1.0, 0.1.0-dev or
// 0.1.0-dev+abc123.
func String() string {
	s := Version
	if VersionPrerelease != "" {
		s += "-" + VersionPrerelease
	}
	if VersionMetadata != "" {
		s += "+" + VersionMetadata
	}
	return s
}
