// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page"
)

func newPageCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "page [FILE|-]",
		Short: "Write the page that opens cards in a browser",
		Long: `Writes the page that makes a key and opens envelopes in a browser, for owners who
install nothing: one HTML file. It works from a disk, without network, and forbids
the browser to send anything. Give it to your customers together with their
envelopes, or put it on your site.

Without FILE, or with -, it goes to standard output. A file must be new. Each
release has the same file beside totpctl.`,
		Example: `    $ totpctl page open-card.html`,
		Args:    atMost(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "-" {
				if err := writeNewMode(args[0], page.HTML(), 0o644); err != nil {
					return err
				}
				printf("wrote the page to %q; open it in a browser", args[0])
				return nil
			}
			if isTerminal(os.Stdout) {
				return withHints(usageErrorf("the page is not written to a terminal"), "name a file: totpctl page open-card.html")
			}
			return writeStdout(page.HTML())
		}),
	}
}
