// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/verify"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// errRows means that a server does something else than it should.
var errRows = errors.New("not as expected")

const targetHint = "such as 192.0.2.7, alice@server.example:2222 or [2001:db8::7]:2222"

type verifyOptions struct {
	keys, identities []string
	card             string
	code, wrongCode  bool
	knownHosts       []string
	json             bool
	timeout          time.Duration
}

func newVerifyCommand() *cobra.Command {
	var o verifyOptions
	cmd := &cobra.Command{
		Use:   "verify [-i KEY] [--card FILE [-I IDENTITY]] [user@]HOST[:PORT]",
		Short: "Try whether a live server demands a key and a code",
		Long: `Tries logins to a live server and prints a table of what was to be expected and
what was seen. What can be tried depends on what you have: without anything the
refusals, the host key and the algorithms that the server offers; with the
account's SSH key also that the key alone opens nothing and what is asked then;
with the card, or a code typed in, that key and code open the account, and the
same code not a second time.

KEY is an OpenSSH private key, or a public one whose private half your ssh-agent
has. Without -i the first keys of the agent are offered. FILE is an envelope, which
is opened as "totpctl open -i IDENTITY" does, or what that prints with --json.
The user is the card's, or as with ssh your own name here.

Neither key nor code goes to a server whose host key is not on the card or, where
no card is given, in known_hosts. Nothing is run on the server.

A run costs the account at most two of the three attempts in 30 seconds that it
has, and three with --wrong-code, which therefore waits half a minute. Leave as
long between two runs: servers with OpenSSH 9.8 or newer lock out addresses that
fail too often.

Exit codes: 0 all that was tried is as expected, 1 a row is not or the server did
not answer, 2 usage error.`,
		Example: `    $ totpctl verify 203.0.113.7

    $ totpctl verify -i ~/.ssh/id_ed25519 --card alice.age 203.0.113.7

    $ totpctl verify -i ~/.ssh/id_ed25519 --code alice@web-1.example:2222

    $ totpctl verify --json '[2001:db8::7]:22' | jq -r .result`,
		Args: atMost(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withHints(usageErrorf("no host given"), "usage: "+cmd.UseLine())
			}
			return verifyHost(cmd.Context(), o, args[0])
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVarP(&o.keys, "key", "i", nil, "log in with the SSH key in the file `KEY` (can be repeated)")
	f.StringVar(&o.card, "card", "", "take code and host keys from the card in `FILE` (- for standard input)")
	f.StringArrayVarP(&o.identities, "identity", "I", nil, "open the card with the identity in `FILE` (can be repeated)")
	f.BoolVar(&o.code, "code", false, "ask for a code on the terminal")
	f.BoolVar(&o.wrongCode, "wrong-code", false, "with --card: try a wrong code as well")
	f.StringArrayVar(&o.knownHosts, "known-hosts", nil, "compare the host key with `FILE`, in place of ~/.ssh/known_hosts (can be repeated)")
	f.BoolVar(&o.json, "json", false, "print the report as JSON")
	f.DurationVar(&o.timeout, "timeout", verify.DefaultTimeout, "give up an attempt after this `TIME`")
	return cmd
}

// check finds what is wrong with the options, before anything is read.
func (o verifyOptions) check(name string) (verify.Target, error) {
	t, err := verify.ParseTarget(name)
	switch {
	case err != nil:
		return t, withHints(usageError{err}, targetHint)
	case o.timeout < time.Second || o.timeout > 10*time.Minute:
		return t, usageErrorf("--timeout %v: must be from 1s to 10m", o.timeout)
	case o.card == "" && len(o.identities) > 0:
		return t, withHints(usageErrorf("-I %q: has no use without --card", o.identities[0]), "the SSH key to log in with is named by -i")
	case o.card == "" && o.wrongCode:
		return t, usageErrorf("--wrong-code: needs --card, which tells what codes are right")
	}
	stdin := 0
	for _, name := range append([]string{o.card}, o.identities...) {
		if name == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return t, usageErrorf("standard input is named more than once: an identity or the card must be a file")
	}
	return t, nil
}

func verifyHost(ctx context.Context, o verifyOptions, name string) error {
	t, err := o.check(name)
	if err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()

	job := verify.Options{
		Timeout:   o.timeout,
		Say:       func(text string) { printf("%s", text) },
		WhyNoKey:  "no key: -i FILE, or an ssh-agent",
		WhyNoCode: "no code: --card FILE, or --code",
	}
	job.WhyNoWrong = "costs an attempt: --wrong-code, with --card"
	if o.card != "" {
		c, err := o.readCard(t.User)
		if err != nil {
			return err
		}
		t.User, job.HostKeys = c.User, c.HostKeys
		job.Code = codeOf(c)
		if o.wrongCode {
			job.Wrong = wrongCodeOf(c)
		}
	}
	if o.code {
		job.Code = askCode
	}
	if t.User == "" {
		if t.User, err = localUser(); err != nil {
			return err
		}
	}
	job.Target = t
	keys, closeAgent, err := o.loginKeys(ctx)
	if err != nil {
		return err
	}
	defer closeAgent()
	job.Keys = keys
	if len(job.HostKeys) == 0 {
		files, err := o.knownHostsFiles()
		if err != nil {
			return err
		}
		if job.KnownHosts, err = readKnownHosts(files...); err != nil {
			return withHints(err, "--known-hosts FILE names another file")
		}
	}

	report, err := verify.Run(ctx, job)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if perr := printReport(o, report); perr != nil {
		return perr
	}
	if errors.Is(err, verify.ErrAlgorithms) {
		return withHints(err, "the rows about what it offers stand; try the logins with ssh itself")
	}
	if err != nil {
		return err
	}
	var wrong []string
	for _, row := range report.Rows {
		switch {
		case row.Status == verify.StatusWrong:
			wrong = append(wrong, row.Attempt)
		case row.ID == "host-key" && row.Status == verify.StatusNotTried:
			warningf("the host key is not verified: %s", row.Why)
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s of %s: %w: %s", plural(len(wrong), "row"), t, errRows, strings.Join(wrong, ", "))
	}
	return nil
}

func printReport(o verifyOptions, r verify.Report) error {
	if o.json {
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		return writeStdout(append(text, '\n'))
	}
	if r.Count(verify.StatusNotTried) == len(r.Rows) {
		return nil // the error says it all
	}
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		return err
	}
	return writeStdout([]byte(b.String()))
}

// readCard reads the card of a user; an empty name takes the only one there is.
func (o verifyOptions) readCard(user string) (card.Card, error) {
	data, err := readInput(o.card, maxInput)
	if err != nil {
		return card.Card{}, fmt.Errorf("--card: %w", err)
	}
	found := findEnvelopes(data)
	if len(found) == 0 {
		c, err := card.Parse(data)
		switch {
		case errors.Is(err, card.ErrNoCard):
			return c, fmt.Errorf("--card: %w", nothingFound(o.card, data))
		case err != nil:
			return c, fmt.Errorf("--card %q: %w", o.card, err)
		case user != "" && user != c.User:
			return c, withHints(fmt.Errorf("--card %q: is the card of %s, not of user %q", o.card, account(c), user),
				"leave the user away, and the card's is taken")
		}
		return c, nil
	}
	as := openOptions{user: user}
	cards, err := as.openCards(found, o.identities)
	if err != nil {
		return card.Card{}, identityByI(fmt.Errorf("--card: %w", err))
	}
	if err := contradiction(cards); err != nil {
		return card.Card{}, fmt.Errorf("--card %q: %w", o.card, err)
	}
	if len(cards) > 1 {
		return card.Card{}, withHints(fmt.Errorf("--card %q: holds %s; choose one by user@HOST", o.card, plural(len(cards), "card")),
			few(listCards(cards))...)
	}
	return cards[0], nil
}

// identityByI gives the hints of open as verify has the option: -i is the login
// key here.
func identityByI(err error) error {
	var hints []string
	for _, h := range hintsOf(err) {
		hints = append(hints, strings.ReplaceAll(h, "-i ", "-I "))
	}
	return withHints(wrap(err.Error(), errors.New("")), hints...)
}

// knownHostsFiles are those named, or those that ssh reads and that are there.
func (o verifyOptions) knownHostsFiles() ([]string, error) {
	for _, name := range o.knownHosts {
		if _, err := os.Stat(name); err != nil {
			return nil, fmt.Errorf("--known-hosts: %w", fileError(name, err))
		}
	}
	if len(o.knownHosts) > 0 {
		return o.knownHosts, nil
	}
	names := []string{"/etc/ssh/ssh_known_hosts"}
	if home, err := os.UserHomeDir(); err == nil {
		names = append(names, filepath.Join(home, ".ssh", "known_hosts"))
	}
	var there []string
	for _, name := range names {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, name)
		}
	}
	return there, nil
}

// localUser is the name that ssh would log in with.
func localUser() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", withHints(errors.New("no user given"), "name one: user@HOST")
	}
	name := u.Username
	// Windows says DOMAIN\name.
	name = name[strings.LastIndexByte(name, '\\')+1:]
	if err := verify.CheckUser(name); err != nil {
		return "", withHints(fmt.Errorf("no user given, and %w", err), "name one: user@HOST")
	}
	return name, nil
}
