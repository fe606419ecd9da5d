// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// ErrCycle means that systemd has found units that wait for each other, of which
// it drops one at random.
var ErrCycle = errors.New("systemd found an ordering cycle")

// Sudo logs in with the card of a person who may use sudo, runs a shell script as
// root, and returns its standard output.
func (i *Instance) Sudo(ctx context.Context, c card.Card, script string) (string, error) {
	server, err := i.Server(c)
	if err != nil {
		return "", err
	}
	a, err := i.Account(c)
	if err != nil {
		return "", err
	}
	return login.Go{}.Run(ctx, server, a, "sudo sh -euc '"+strings.ReplaceAll(script, "'", `'\''`)+"'")
}

// OrderingCycles looks for ordering cycles in all that systemd has said in this
// boot: on the console, and in the journal, which a login with the card reads.
func (i *Instance) OrderingCycles(ctx context.Context, c card.Card) error {
	// --merge, since an image that was not shut down in order gets its machine-id in
	// the middle of its first boot, and the journal goes by that ID. grep ends with 1
	// where nothing matches; that there is a journal of this boot is seen in the
	// kernel's first line. sudo logs the command itself, which must not match.
	journal, err := i.Sudo(ctx, c, "journalctl --merge --no-pager --output=cat _BOOT_ID=$(tr -d - </proc/sys/kernel/random/boot_id) | grep -iE -e '^Linux version' -e '[o]rdering cycle' -e '[d]eleted to break'")
	if err != nil {
		return err
	}
	if !strings.Contains(journal, "Linux version") {
		return fmt.Errorf("the journal of this boot is not there: %q", journal)
	}
	return Cycles(i.Machine.ConsoleLog(), journal)
}

// Cycles returns the lines in what systemd has said that tell of an ordering cycle.
func Cycles(texts ...string) error {
	var errs []error
	for _, text := range texts {
		for line := range strings.Lines(text) {
			lower := strings.ToLower(line)
			if strings.Contains(lower, "ordering cycle") || strings.Contains(lower, "deleted to break") {
				errs = append(errs, fmt.Errorf("%w: %s", ErrCycle, strings.TrimSpace(line)))
			}
		}
	}
	return errors.Join(errs...)
}

// Prove goes the whole way for another system, without what does not depend on
// it: a build, a first boot, envelopes, cards, and the short table of logins. The
// instance goes on running.
func Prove(ctx context.Context, o Options) (*Result, error) {
	res := &Result{}
	var err error
	if o.Firewall != nil {
		o.System = o.System.With(o.Firewall.Packages, o.Firewall.Files)
	}
	if res.Lab, err = NewLab(ctx, o.System, o.Module, o.Cache, o.Work, o.Report); err != nil {
		return res, err
	}
	res.Lab.PullPlug, res.Lab.Firewall = o.PullPlug, o.Firewall
	if err := res.Lab.Bake(ctx); err != nil {
		return res, err
	}
	people, err := res.Lab.People(ctx)
	if err != nil {
		return res, err
	}
	if res.Instance, err = res.Lab.NewInstance(ctx, "web1", people); err != nil {
		return res, err
	}
	if err := res.Instance.Boot(ctx); err != nil {
		return res, err
	}
	envelopes, err := res.Instance.Await(ctx, nil)
	if err != nil {
		return res, err
	}
	if err := res.Instance.Machine.WaitUp(ctx); err != nil {
		return res, err
	}
	for _, e := range envelopes {
		c, err := res.Instance.Open(ctx, e)
		if err != nil {
			return res, err
		}
		res.Cards = append(res.Cards, c)
	}
	first := res.Cards[0]
	server, err := res.Instance.Server(first)
	if err != nil {
		return res, err
	}
	a, err := res.Instance.Account(first)
	if err != nil {
		return res, err
	}
	for _, p := range people {
		if !p.Enrolled() {
			res.Rows, err = login.Short(ctx, login.Go{}, server, a, login.Account{User: p.Name, Key: p.Key, Password: p.Password})
		}
	}
	return res, err
}
