// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

// Demo shows the whole way from a stock Debian image to a login with key and
// code, on a Debian 12 machine as root, and does all of its own set-up.
//
// It builds the plugin, runs packer build with QEMU, boots an instance of the
// image, receives and opens the sealed cards, logs in for real, and looks for
// the secrets where they must not be. It ends with 1 if anything is not as it
// should be.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/report"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/scenario"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	keep := flags.Bool("keep", false, "leave the instance running, and say how to log in")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "demo: %q: it takes no arguments; usage: go run ./acctest/demo [--keep]\n", flags.Arg(0))
		return 2
	}
	r := report.New(os.Stdout)
	if err := demo(ctx, r, *keep); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		return 1
	}
	return 0
}

func demo(ctx context.Context, r *report.Reporter, keep bool) (err error) {
	cache, err := rootfs.CacheDir()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(cache, "demo-")
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, os.RemoveAll(work))
		}
	}()
	res, err := scenario.Run(ctx, scenario.Options{
		Module: filepath.Dir(cache), Cache: cache, Work: work, Report: r,
		Color: term.IsTerminal(int(os.Stdout.Fd())),
	})
	if err != nil {
		return err
	}
	if keep {
		if err := r.Step("Boot the instance again, and leave it running", func() error { return leave(ctx, res, work) }); err != nil {
			return err
		}
		kept = true
	}
	s := int(r.Elapsed().Seconds())
	fmt.Printf("\nEverything is as it should be. It took %d min %d s.\n", s/60, s%60)
	return nil
}

// leave boots the instance and says how to log in to it.
func leave(ctx context.Context, res *scenario.Result, work string) error {
	i := res.Instance
	if err := i.BootToStay(ctx); err != nil {
		return err
	}
	if err := i.Machine.WaitUp(ctx); err != nil {
		i.Cut()
		return err
	}
	c, alice := res.Cards[0], i.People[0]
	lines, err := c.KnownHosts(i.Machine.Addr())
	if err != nil {
		i.Cut()
		return err
	}
	known := filepath.Join(work, "known_hosts")
	f, err := os.Create(known)
	if err != nil {
		i.Cut()
		return err
	}
	for _, line := range lines {
		fmt.Fprintln(f, line)
	}
	if err := f.Close(); err != nil {
		i.Cut()
		return err
	}
	fmt.Printf(`
   Scan the QR code of %s's card above with an authenticator app, then:

   ssh -F none -p %d -i %s -o UserKnownHostsFile=%s %s@127.0.0.1

   End it with: kill %d %d; rm -r %s
`, c.User, i.Machine.Port, alice.Key.File, known, c.User, i.Machine.PID(), i.ReceiverPID(), work)
	return nil
}
