// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Setup installs the Debian packages that the tests and the demo need, and says
// which before it does. For "testacc" it fetches the servers of the recipes' tests
// as well, into .cache.
//
// Where it cannot, it says what is missing. For "test" that is no error, since
// the tests that need it are then skipped, unless CI=true is set.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/setup/debian"
)

var errNoRoot = errors.New("not root; the tests that log in to a Debian root filesystem or a virtual machine need it")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "usage: go run ./acctest/setup test|demo|testacc")
		return 2
	}
	purpose := debian.Purpose(args[0])
	ci := os.Getenv("CI") == "true"
	err := debian.Ensure(ctx, purpose, os.Stdout)
	if err == nil && os.Geteuid() != 0 {
		err = errNoRoot
	}
	if err == nil && purpose == debian.TestAcc {
		err = servers(ctx, os.Stdout)
	}
	switch {
	case err == nil:
		return 0
	case errors.Is(err, debian.ErrPurpose):
		fmt.Fprintf(os.Stderr, "setup: %v\n", err)
		return 2
	case purpose == debian.Test && !ci && (errors.Is(err, debian.ErrMissing) || errors.Is(err, errNoRoot)):
		fmt.Fprintf(os.Stderr, "setup: %v\nsetup: the tests that need it are skipped\n", err)
		return 0
	}
	fmt.Fprintf(os.Stderr, "setup: %v\n", err)
	return 1
}
