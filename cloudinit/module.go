// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/templates"
)

// Where the module and its unit belong on a machine.
const (
	ModulePath = "/usr/lib/python3/dist-packages/cc_totp.py"
	UnitPath   = "/etc/systemd/system/totp-module.service"
)

// agentPath is where a bake puts the agent.
const agentPath = "/usr/local/sbin/totp-agent"

// Module returns cloud-init's module totp, one text for all versions from 20.4
// on. It hands the key totp of an instance's data to the agent.
func Module() ([]byte, error) { return render(ModulePath) }

// ModuleUnit returns the systemd unit that calls the module at each boot, before
// the agent enrolls anybody.
func ModuleUnit() ([]byte, error) { return render(UnitPath) }

func render(path string) ([]byte, error) {
	return templates.Render(strings.TrimPrefix(path, "/"), templates.Agent{Program: agentPath, Module: ModulePath, SSHService: "ssh.service"})
}
