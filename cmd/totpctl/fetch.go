// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/verify"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// fetchUser is who is named to a server where the caller names nobody. No login is
// tried; root is an account that every server has, so that the name fails nothing.
const fetchUser = "root"

func newFetchCommand() *cobra.Command {
	var o openOptions
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "fetch [-i IDENTITY]... [user@]HOST[:PORT]",
		Short: "Fetch your card from the banner of an SSH server",
		Long: `Connects to an SSH server, takes the envelopes out of the banner that it shows
before a login (the channel ssh-banner), and opens them as "totpctl open" does,
with the same options. It logs in nowhere and needs no account.

A card is shown only if the host key of this very connection is one of those on
it: somebody in the middle can pass the server's banner on, but not its key. That
tells which server the card is for, and not who has sealed it: anybody who knows
your recipient can seal a card of their own to it, and show it on a server
of their own. --ticket tells that as well.

The server shows the banner until the first login with a code. The user's name
makes no difference, unless the server's configuration says so.`,
		Example: `    $ totpctl fetch 203.0.113.7

    $ totpctl fetch --known-hosts ~/.ssh/known_hosts web-1.example:2222

    $ totpctl fetch --user alice --png qr.png 203.0.113.7`,
		Args: atMost(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withHints(usageErrorf("no host given"), "usage: "+cmd.UseLine())
			}
			return fetch(cmd.Context(), o, args[0], timeout)
		}),
	}
	o.flags(cmd)
	cmd.Flags().Lookup("host").Usage = "with --known-hosts: the server is reached as `ADDR[:PORT]`, if not as HOST"
	cmd.Flags().DurationVar(&timeout, "timeout", verify.DefaultTimeout, "give up after this `TIME`")
	return cmd
}

func fetch(ctx context.Context, o openOptions, host string, timeout time.Duration) error {
	t, err := verify.ParseTarget(host)
	if err != nil {
		return withHints(usageError{err}, targetHint)
	}
	if o.knownHosts != "" && o.host == "" {
		o.host = t.Addr()
	}
	if err := o.check(""); err != nil {
		return err
	}
	if timeout < time.Second || timeout > 10*time.Minute {
		return usageErrorf("--timeout %v: must be from 1s to 10m", timeout)
	}
	if t.User == "" {
		t.User = fetchUser
	}
	if ctx == nil {
		ctx = context.Background()
	}
	found, greeting, err := readBanner(ctx, t, timeout)
	if err != nil {
		return err
	}
	o.vet = func(c card.Card) error {
		if err := greeting.Shown(c.HostKeys); err != nil {
			return withHints(wrap(fmt.Sprintf("was opened, but its card %v", err), err),
				"somebody may be between you and the server, or has sealed a card that is none of its own; do not use it, and ask whoever runs the server")
		}
		return nil
	}
	o.hostKey = greeting.HostKey()
	return o.openAndShow(found)
}

// readBanner returns the envelopes in a server's banner.
func readBanner(ctx context.Context, t verify.Target, timeout time.Duration) ([]finding, verify.Greeting, error) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	g, err := verify.Greet(ctx, t, timeout)
	if ctx.Err() != nil {
		return nil, g, errors.New("interrupted")
	}
	if err != nil {
		return nil, g, err
	}
	found := findEnvelopes([]byte(g.Banner))
	switch {
	case len(found) > 0:
		return found, g, nil
	case g.Banner == "":
		return nil, g, withHints(fmt.Errorf("host %q shows no banner", t.Addr()),
			"it shows envelopes only if its policy has the channel ssh-banner, and until the first login with a code")
	}
	return nil, g, withHints(fmt.Errorf("host %q shows a banner without an envelope", t.Addr()),
		fmt.Sprintf("it begins: %.70q", g.Banner))
}
