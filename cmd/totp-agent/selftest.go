// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/selftest"
)

// inside is the word by which the self-test calls itself.
const inside = "inside"

func selftestVerb(fs *flag.FlagSet) func(env, []string) error {
	asJSON := fs.Bool("json", false, "print the rows as JSON")
	skip := fs.Bool("skip", false, "leave it out where the bake's report says that this system is proven")
	return func(e env, args []string) error {
		if slices.Equal(args, []string{inside}) {
			return selftest.Inside(os.Stdin, e.out)
		}
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		if *skip {
			report, err := bake.ReadReport(t)
			if err != nil {
				return err
			}
			if report.System.Support == bake.Proven {
				fmt.Fprintln(e.err, "selftest: left out, as asked")
				return nil
			}
			fmt.Fprintf(e.err, "selftest: not left out, since this system is not %s\n", bake.Proven)
		}
		rows, err := selftest.Run(e, t, selftest.Options{
			// Not its path, where another file may be by now.
			Self: []string{"/proc/self/exe", "selftest", inside},
			Log:  e.err,
		})
		if *asJSON {
			if rows == nil {
				rows = []selftest.Row{}
			}
			enc := json.NewEncoder(e.out)
			enc.SetIndent("", "  ")
			if err := enc.Encode(rows); err != nil {
				return err
			}
		}
		if err == nil {
			fmt.Fprintf(e.err, "selftest: %d rows as expected\n", len(rows))
		}
		return err
	}
}
