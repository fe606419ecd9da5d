// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Command packer-plugin-totp is the Packer plugin: it registers the provisioner
// totp and the data source totp-userdata, and does nothing else. Packer starts it; run by hand, it answers
// `describe`.
package main

import (
	"fmt"
	"os"

	"github.com/hashicorp/packer-plugin-sdk/plugin"
	sdkversion "github.com/hashicorp/packer-plugin-sdk/version"

	"github.com/packer-plugin-totp/packer-plugin-totp/datasource/userdata"
	"github.com/packer-plugin-totp/packer-plugin-totp/provisioner/totp"
	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

func main() {
	set := plugin.NewSet()
	set.RegisterProvisioner(plugin.DEFAULT_NAME, new(totp.Provisioner))
	set.RegisterDatasource("userdata", new(userdata.Datasource))
	set.SetVersion(sdkversion.NewPluginVersion(version.Version, version.VersionPrerelease, version.VersionMetadata))
	if err := set.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
