// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Command release makes the files of a release and checks them, and holds the
// agents to their size. `make release-snapshot` and `make size` run it at the
// top of a checkout, with the agents built.
//
//	release snapshot    builds everything into dist/, then checks it
//	release check       checks what is in dist/
//	release size        measures the agents
//
// The plugin's files have the names that `packer init` looks for on a release
// page. The same sources give the same files. They are not signed, and nothing
// is published: that is for a person to do.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
)

const dist = "dist"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	verbs := map[string]func(context.Context) error{
		"snapshot": func(ctx context.Context) error {
			if err := build(ctx, dist); err != nil {
				return err
			}
			return check(ctx, dist, describe)
		},
		"check": func(ctx context.Context) error { return check(ctx, dist, describe) },
		"size":  size,
	}
	if len(os.Args) != 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: release snapshot | check | size")
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](ctx); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}
