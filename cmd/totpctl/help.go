// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import "github.com/spf13/cobra"

// alsoUsed is the annotation with the second way to call a command.
const alsoUsed = "also used"

// helpTemplate lays help out as age does: how to call it, the options, what it
// does, examples.
const helpTemplate = `Usage:
    {{.UseLine}}
{{- with index .Annotations "` + alsoUsed + `"}}
    {{.}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Commands:
{{- range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
    {{rpad .Name .NamePadding}} {{.Short}}
{{- end}}{{end}}
{{- end}}
{{- if .HasAvailableLocalFlags}}

Options:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{- end}}

{{with or .Long .Short}}{{. | trimTrailingWhitespaces}}{{end}}
{{- if .HasExample}}

Examples:

{{.Example}}
{{- end}}
`

func setHelp(root *cobra.Command) {
	root.DisableFlagsInUseLine = true
	root.SetHelpTemplate(helpTemplate)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		cmd.DisableFlagsInUseLine = true
		cmd.InitDefaultHelpFlag()
		cmd.Flags().Lookup("help").Usage = "print this help"
		switch cmd.Name() {
		case "help":
			cmd.Short = "Print the help of a command"
			cmd.Args = func(_ *cobra.Command, args []string) error {
				if found, _, err := root.Find(args); err != nil || len(args) > 0 && found == root {
					return unknownCommand(root, args[0])
				}
				return nil
			}
		case "completion":
			cmd.Short = "Print the completion script of a shell"
		}
	}
	root.InitDefaultHelpFlag()
	root.InitDefaultVersionFlag()
	root.Flags().Lookup("help").Usage = "print this help"
	root.Flags().Lookup("version").Usage = "print the version"
}
