// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

type keygenOptions struct {
	output  string
	pq      bool
	classic bool
	convert bool
}

func newKeygenCommand() *cobra.Command {
	var o keygenOptions
	cmd := &cobra.Command{
		Use:   "keygen [-o FILE|-] [--classic|--pq]",
		Short: "Make a key pair: an identity to keep, a recipient to give away",
		Annotations: map[string]string{
			alsoUsed: "totpctl keygen -y [FILE]",
		},
		Long: `Makes an age key pair. The identity, which opens envelopes, goes to a new file
that only you can read; the recipient, which servers seal to, is printed on
standard output. An existing file is never overwritten.

Without -o the identity goes where "totpctl open" looks for it:
totpctl/identity.txt in your configuration directory. With -o - it is printed
on standard output as age-keygen does, and the recipient on standard error.

The default is an X25519 key, because every age tool can open what is sealed to
it, also the one of your distribution. With --pq it is a hybrid post-quantum
key, for channels that others may record and keep, such as a console log; that
needs totpctl or age 1.3 to open. One server is given keys of one kind: a
classic copy would undo the other.

With -y the recipients of an existing identity file are printed.`,
		Example: `    $ totpctl keygen
    totpctl: wrote the identity to "/home/alice/.config/totpctl/identity.txt"
    age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p

    $ totpctl keygen --pq -o pq.txt > recipient.txt

    $ totpctl keygen -y
    age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args: atMost(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return keygen(o, args)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&o.output, "output", "o", "", "write the identity to the new `FILE`, or to standard output if it is -")
	f.BoolVar(&o.classic, "classic", false, "make an X25519 key (the default)")
	f.BoolVar(&o.pq, "pq", false, "make a hybrid post-quantum key, ML-KEM-768 with X25519")
	f.BoolVarP(&o.convert, "recipient", "y", false, "print the recipients of the identity file FILE")
	return cmd
}

func keygen(o keygenOptions, args []string) error {
	switch {
	case o.pq && o.classic:
		return usageErrorf("--pq and --classic: one key is of one kind")
	case o.convert && (o.pq || o.classic || o.output != ""):
		return usageErrorf("-y takes no other option: it makes no key")
	case o.convert:
		return printRecipients(args)
	case len(args) > 0:
		return withHints(usageErrorf("too many arguments: %q", args[0]), "the file to write is named by -o")
	}

	name := o.output
	if name == "" {
		var err error
		if name, err = defaultIdentity(); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return fileError(filepath.Dir(name), err)
		}
	}
	generate := seal.GenerateX25519
	if o.pq {
		generate = seal.GenerateHybrid
	}
	identity, recipient, err := generate()
	if err != nil {
		return fmt.Errorf("making a key: %w", err)
	}
	text := fmt.Sprintf("# created: %s\n# public key: %s\n%s\n",
		time.Now().Format(time.RFC3339), recipient, identity)

	if name == "-" {
		if !isTerminal(os.Stdout) {
			fmt.Fprintf(os.Stderr, "Public key: %s\n", recipient)
		}
		if info, err := os.Stdout.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			warningf("others can read the file that the identity is written to")
		}
		return writeStdout([]byte(text))
	}
	if err := writeNew(name, []byte(text)); err != nil {
		if o.output == "" {
			err = withHints(err, "totpctl keygen -y prints the recipient of the identity that is there")
		}
		return err
	}
	printf("wrote the identity to %q", name)
	hintf("keep a copy of it in a safe place: nothing else opens what is sealed to it")
	return writeStdout([]byte(recipient + "\n"))
}

func printRecipients(args []string) error {
	ids, err := loadIdentities(args)
	if err != nil {
		return err
	}
	var out strings.Builder
	for _, id := range ids {
		r, err := recipientOf(id)
		if err != nil {
			return err
		}
		out.WriteString(r + "\n")
	}
	return writeStdout([]byte(out.String()))
}
