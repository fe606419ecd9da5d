// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

func versionString() string { return version.String() }

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  "Prints the name and the version of this program on one line.",
		Example: `    $ totpctl version
    totpctl 0.1.0`,
		Args: atMost(0),
		RunE: runs(func(*cobra.Command, []string) error {
			return writeStdout([]byte("totpctl " + versionString() + "\n"))
		}),
	}
}
