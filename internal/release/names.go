// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"

	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

const module = "github.com/packer-plugin-totp/packer-plugin-totp"

// A platform is one that plugin and totpctl are released for.
type platform struct{ OS, Arch string }

var platforms = []platform{
	{"linux", "amd64"}, {"linux", "arm64"},
	{"darwin", "amd64"}, {"darwin", "arm64"},
	{"windows", "amd64"}, {"windows", "arm64"},
}

func (p platform) exe() string {
	if p.OS == "windows" {
		return ".exe"
	}
	return ""
}

// pluginBase is the name that Packer's installer expects of the binary, and with
// .zip of its archive. api is the plugin protocol's version, as x5.0.
func pluginBase(p platform, api string) string {
	return fmt.Sprintf("packer-plugin-totp_v%s_%s_%s_%s", version.Version, api, p.OS, p.Arch)
}

// pluginSums is the list that Packer's installer asks a release for first. It
// holds the plugin's archives alone.
func pluginSums() string { return fmt.Sprintf("packer-plugin-totp_v%s_SHA256SUMS", version.Version) }

func totpctlBase(p platform) string {
	return fmt.Sprintf("totpctl_v%s_%s_%s", version.Version, p.OS, p.Arch)
}

// pageName is the page that opens cards in a browser, for those who take nothing
// else of a release. Its sum is in totpctl's list.
func pageName() string { return fmt.Sprintf("totpctl_v%s_page.html", version.Version) }

func totpctlSums() string { return fmt.Sprintf("totpctl_v%s_SHA256SUMS", version.Version) }
