// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Totpctl is the tool for the desk: it makes an owner's key and the user-data of
// an instance, receives sealed enrollment cards at the host's end of a channel,
// opens them, and tries whether a live server demands a key and a code.
//
// # Promises
//
// What an envelope holds goes where it was asked for and nowhere else: the
// terminal, standard output, or a new file that only its owner can read. It is
// never in an error, a log, an argument or a temporary file. No file is ever
// overwritten. Nothing of an envelope is shown before all of it has been
// authenticated and the card in it has been checked.
//
// Exit codes: 0 done, 1 failed, 2 usage error.
//
// # Limits
//
// An envelope proves that it is whole, not who sealed it: anybody who knows a
// recipient can seal to it, unless a ticket says otherwise. Neither does the tool wipe the scrollback of the
// terminal it has printed a card on.
package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	root := newRootCommand()
	root.SetArgs(args)
	err := root.Execute()
	if err == nil {
		return 0
	}
	report(err)
	if failed := new(runError); errors.As(err, &failed) && !errors.As(err, new(usageError)) {
		return 1
	}
	return 2
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "totpctl COMMAND",
		Short: "Open sealed enrollment cards, receive them, and verify servers",
		Long: `Totpctl opens the enrollment cards that servers seal for their owners: the QR
code for the authenticator app, the backup codes and the SSH host keys. It makes
the key that they are sealed to, fetches them from a server's banner, receives
them at the host's end of a virtual machine's port or by HTTPS, and tries whether a
live server demands a key and a code.

totpctl COMMAND --help tells more about each.`,
		Example: `    $ totpctl keygen
    age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p

    $ totpctl open envelope.age

    $ totpctl fetch 203.0.113.7

    $ totpctl receive --unix /run/vm1-enroll.sock --dir envelopes

    $ totpctl verify --card envelope.age alice@203.0.113.7`,
		Version:       versionString(),
		Args:          cobra.ArbitraryArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			cmd.SetOut(os.Stderr)
			if err := cmd.Help(); err != nil {
				return err
			}
			return usageErrorf("no command given")
		}
		return unknownCommand(root, args[0])
	}
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHints(usageError{err}, cmd.CommandPath()+" --help tells the options")
	})
	root.AddCommand(newOpenCommand(), newKeygenCommand(), newReceiveCommand(), newFetchCommand(), newUserDataCommand(), newVerifyCommand(), newModuleCommand(), newPageCommand(), newVersionCommand())
	setHelp(root)
	return root
}

func unknownCommand(root *cobra.Command, name string) error {
	err := usageErrorf("unknown command %q", name)
	if near := root.SuggestionsFor(name); len(near) > 0 {
		return withHints(err, "did you mean "+strings.Join(near, " or ")+"?")
	}
	return withHints(err, "totpctl --help lists the commands")
}

// runs marks the errors of f as failures of a command with valid arguments. Cobra's own
// errors are all usage errors.
func runs(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := f(cmd, args); err != nil {
			return &runError{err}
		}
		return nil
	}
}

// atMost refuses more than n arguments, naming the first that is too many.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return withHints(usageErrorf("too many arguments: %q is one more than %s takes", args[n], cmd.CommandPath()),
				"usage: "+cmd.UseLine())
		}
		return nil
	}
}
