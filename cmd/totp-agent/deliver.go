// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"flag"
	"fmt"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func deliverVerb(fs *flag.FlagSet) func(env, []string) error {
	again := fs.Bool("again", false, "try every channel now, and offer again what was offered before")
	return func(e env, args []string) error {
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		p, refused, err := enroll.LoadPolicy(t)
		for _, l := range refused {
			fmt.Fprintf(e.err, "deliver: refused the %s layer: %s\n", l.Layer, l.Error)
		}
		if err != nil {
			return err
		}
		o := deliver.Options{Again: *again, Log: e.err, Sender: sender(t)}
		if c, err := openConsole(target.Console, consolePatience); err == nil {
			defer c.Close()
			o.Console = c
		}
		sum, err := deliver.Run(e, t, p, o)
		if err != nil {
			return err
		}
		if sum.Unconfirmed > 0 {
			fmt.Fprintf(e.err, "deliver: %d of %d envelopes may have arrived, and no channel can say so; see: totp-agent status\n", sum.Unconfirmed, sum.Envelopes)
		}
		if sum.Pending > 0 {
			// No failure: the timer tries again, for ever. See: totp-agent status.
			fmt.Fprintf(e.err, "deliver: %d of %d envelopes wait for the next try\n", sum.Pending, sum.Envelopes)
		}
		return nil
	}
}
