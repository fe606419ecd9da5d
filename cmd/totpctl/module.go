// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
)

func newModuleCommand() *cobra.Command {
	var unit bool
	cmd := &cobra.Command{
		Use:   "module [--unit]",
		Short: "Print the cloud-init module that reads the key totp of user-data",
		Long: `Prints cloud-init's module totp. On a machine that has it, user-data can say
under a key "totp" what they otherwise write to a file by write_files. One text
serves cloud-init 20.4 to 26.

In a Packer template, cloud_init_module = true installs it. By hand, as root, on
a machine that the agent is baked into:

    totpctl module >` + cloudinit.ModulePath + `
    totpctl module --unit >` + cloudinit.UnitPath + `
    systemctl enable totp-module.service

The unit calls the module at each boot, ahead of the agent. From version 23.4 on
cloud-init calls a boot "degraded" whose user-data have a key that it does not
know. Nothing else comes of that; where you watch "cloud-init status", use
write_files.`,
		Example: `    $ totpctl module > cc_totp.py`,
		Args:    atMost(0),
		RunE: runs(func(*cobra.Command, []string) error {
			text, err := cloudinit.Module()
			if unit {
				text, err = cloudinit.ModuleUnit()
			}
			if err != nil {
				return err
			}
			return writeStdout(text)
		}),
	}
	cmd.Flags().BoolVar(&unit, "unit", false, "print the systemd unit that calls the module")
	return cmd
}
