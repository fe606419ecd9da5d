// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

type openOptions struct {
	identities []string
	user, id   string
	color      string
	json       bool
	png, html  string
	knownHosts string
	host       string
	ticket     string

	vet     func(card.Card) error // says why an opened card is not to be shown; nil: nothing
	hostKey string                // that the server has shown on whose cards vet looks for it; empty: no server was asked
}

func newOpenCommand() *cobra.Command {
	var o openOptions
	cmd := &cobra.Command{
		Use:   "open [-i IDENTITY]... [FILE|-]",
		Short: "Open an envelope and show the enrollment card in it",
		Long: `Opens an envelope and shows the card in it: the QR code for the authenticator
app, the backup codes, and the SSH host keys that the first connection must show.

FILE is an envelope, armored or binary, a captured console log, or a text that
holds envelopes, as the JSON of the channel http: the blocks in it are found and
put together again. Without FILE, or with -, standard input is
read. Where several envelopes can be opened, all are shown but those that a later
one of the same user and instance replaces; --user and --id choose. Different cards
with the same ID are never chosen between: one of them is forged.

IDENTITY is a file that "totpctl keygen" or age-keygen wrote, also one that is
protected by a passphrase, or an OpenSSH private key. Without -i it is
totpctl/identity.txt in your configuration directory.

On a terminal the QR code is black on white by explicit colours, so that cameras
read it on any background. NO_COLOR does not change that, because these colours
are part of the code and not decoration; --color=never does.

With --json, --png, --html or --known-hosts the card is written in these forms
only. A file must be new, and only you can read it; --known-hosts adds to a file
the lines that are not in it. Lines for known_hosts let the first connection be
checked by your SSH client: they are worth as much as the way the envelope took
to you, since anybody who knows your recipient can seal to it.

One line says what is proven of where a card comes from, and what is not; with
--json it is left out where nothing is.

With --ticket, the file that "totpctl user-data --ticket" wrote, a card is shown
only if it is from the instance that got that user-data, is sealed to those who
should read it and to nobody else, and contradicts no card that was opened with
the ticket before. What is accepted is remembered in the ticket.`,
		Example: `    $ totpctl open envelope.age

    $ totpctl open -i ~/.ssh/id_ed25519 --user alice console.log

    $ totpctl open --png qr.png envelope.age

    $ totpctl open --ticket alice.ticket envelope.age

    $ totpctl open --known-hosts ~/.ssh/known_hosts --host 192.0.2.7 envelope.age

    $ curl -s https://panel.example/envelope | totpctl open --json | jq -r .otpauth`,
		Args: atMost(1),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return open(o, name)
		}),
	}
	o.flags(cmd)
	return cmd
}

// flags are those of every command that shows cards.
func (o *openOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVarP(&o.identities, "identity", "i", nil, "open with the identity in `FILE` (can be repeated)")
	f.StringVar(&o.user, "user", "", "only the card of the user `NAME`")
	f.StringVar(&o.id, "id", "", "only the envelope whose ID begins with `ID`")
	f.BoolVar(&o.json, "json", false, "print the card as one line of JSON")
	f.StringVar(&o.png, "png", "", "write the QR code to the new `FILE`, or to standard output if it is -")
	f.StringVar(&o.html, "html", "", "write the card as a page to print to the new `FILE`, or to standard output if it is -")
	f.StringVar(&o.knownHosts, "known-hosts", "", "add the host keys to `FILE`, or print the lines if it is -")
	f.StringVar(&o.host, "host", "", "with --known-hosts: the server is reached as `ADDR[:PORT]`")
	f.StringVar(&o.ticket, "ticket", "", "refuse what is not from the instance of the ticket in `FILE`")
	f.StringVar(&o.color, "color", "auto", "colour the QR code: `WHEN` is auto, always or never")
}

// check finds what is wrong with the options, before anything is read.
func (o openOptions) check(name string) error {
	switch o.color {
	case "auto", "always", "never":
	default:
		return usageErrorf("--color %q: must be auto, always or never", o.color)
	}
	if o.knownHosts != "" && o.host == "" {
		return withHints(usageErrorf("--known-hosts: needs --host"),
			"a card does not know the address by which you reach the server: --host 192.0.2.7, or --host server.example:2222")
	}
	if o.host != "" {
		if o.knownHosts == "" {
			return usageErrorf("--host %q: has no use without --known-hosts", o.host)
		}
		if err := checkHost(o.host); err != nil {
			return err
		}
	}
	var stdout []string
	if o.json {
		stdout = append(stdout, "--json")
	}
	for _, out := range []struct{ flag, name string }{{"--png", o.png}, {"--html", o.html}, {"--known-hosts", o.knownHosts}} {
		if out.name == "-" {
			stdout = append(stdout, out.flag+" -")
		}
	}
	if len(stdout) > 1 {
		return usageErrorf("%s: only one of them can go to standard output", strings.Join(stdout, " and "))
	}
	if o.png == "-" && isTerminal(os.Stdout) {
		return withHints(usageErrorf("--png -: an image is not written to a terminal"), "name a file: --png qr.png")
	}
	stdin := 0
	for _, i := range append(slices.Clone(o.identities), name) {
		if i == "-" {
			stdin++
		}
	}
	if stdin > 1 {
		return usageErrorf("standard input is named more than once: an identity or the envelope must be a file")
	}
	for _, name := range []string{o.png, o.html} {
		if err := checkNew(name); err != nil {
			return err
		}
	}
	return nil
}

func open(o openOptions, name string) error {
	if name == "" {
		name = "-"
	}
	if err := o.check(name); err != nil {
		return err
	}
	input, err := readInput(name, maxInput)
	if err != nil {
		return err
	}
	found := findEnvelopes(input)
	if len(found) == 0 {
		return nothingFound(name, input)
	}
	return o.openAndShow(found)
}

// openAndShow opens what was found, and writes the cards where they were asked for.
func (o openOptions) openAndShow(found []finding) error {
	cards, err := o.openCards(found, o.identities)
	if len(cards) == 0 {
		return err
	}
	if err := o.tellApart(cards); err != nil {
		return err
	}
	// A card beside one that is refused is shown, and the refusal is the end.
	if shown := o.write(cards); shown != nil {
		return shown
	}
	o.sayOrigin(cards)
	return err
}

// openCards opens what was found, and returns the cards that are asked for.
func (o openOptions) openCards(found []finding, identities []string) ([]card.Card, error) {
	found, err := o.worthOpening(found)
	if err != nil {
		return nil, err
	}
	ids, err := loadIdentities(identities)
	if err != nil {
		return nil, err
	}
	opened, stanzas, failed := openAll(found, ids, o.vet)
	cards, err := o.choose(opened, failed)
	if err != nil || o.ticket == "" {
		return cards, err
	}
	return o.accept(cards, stanzas)
}

// worthOpening drops the findings that their marks show to be others than those
// asked for, and fails where nothing is left that could be opened: nobody should
// be asked for a passphrase in vain.
func (o openOptions) worthOpening(found []finding) ([]finding, error) {
	var kept []finding
	whole := false
	for _, f := range found {
		if f.id != "" && !o.mayWant(f) {
			continue
		}
		kept = append(kept, f)
		whole = whole || f.fault == nil
	}
	if len(kept) == 0 {
		return nil, withHints(fmt.Errorf("no envelope %s is in the input", o.wanted()), few(listFindings(found))...)
	}
	if !whole {
		_, _, failed := openAll(kept, nil, nil)
		return nil, noneOpened(failed)
	}
	return kept, nil
}

func (o openOptions) wants(id, user string) bool {
	return strings.HasPrefix(id, o.id) && (o.user == "" || user == o.user)
}

// mayWant is wants for a block of which part of the names may be unknown.
func (o openOptions) mayWant(f finding) bool {
	id, user := f.id, f.user
	if f.fault != nil && strings.HasPrefix(o.id, id) {
		id = o.id
	}
	if user == "" {
		user = o.user
	}
	return o.wants(id, user)
}

// wanted says what --user and --id ask for.
func (o openOptions) wanted() string {
	switch {
	case o.id == "":
		return fmt.Sprintf("of user %q", o.user)
	case o.user == "":
		return fmt.Sprintf("whose ID begins with %q", o.id)
	}
	return fmt.Sprintf("of user %q whose ID begins with %q", o.user, o.id)
}

// choose picks the cards to show: those asked for, without those that another
// one of them replaces. It tells on standard error what it leaves out.
func (o openOptions) choose(opened []card.Card, failed []failure) ([]card.Card, error) {
	if len(opened) == 0 {
		return nil, noneOpened(failed)
	}
	var cards []card.Card
	for _, c := range opened {
		if o.wants(c.ID, c.User) {
			cards = append(cards, c)
		}
	}
	if len(cards) == 0 {
		hints := listCards(opened)
		for _, f := range failed {
			hints = append(hints, "not opened: "+f.text())
		}
		return nil, withHints(fmt.Errorf("no card %s is in the input", o.wanted()), few(hints)...)
	}
	if o.id == "" {
		var latest []card.Card
		for _, c := range cards {
			if !slices.ContainsFunc(cards, func(later card.Card) bool { return replaces(later, c) }) {
				latest = append(latest, c)
			}
		}
		if old := len(cards) - len(latest); old > 0 {
			printf("left out %s that a later one replaces", plural(old, "card"))
		}
		cards = latest
	}
	if len(failed) > 0 {
		printf("%s in the input not opened:", plural(len(failed), "envelope"))
		var lines []string
		for _, f := range failed {
			lines = append(lines, f.text())
		}
		for _, line := range few(lines) {
			printf("  %s", line)
		}
	}
	return cards, nil
}

// tellApart fails where what was asked for can only be made of one card, or of
// cards that do not contradict each other. Shown to somebody who reads, cards
// that do get a warning.
func (o openOptions) tellApart(cards []card.Card) error {
	forged := contradiction(cards)
	switch {
	case forged != nil && (o.json || o.png != "" || o.html != "" || o.knownHosts != ""):
		return forged
	case forged != nil:
		warningf("%v", forged)
		for _, h := range hintsOf(forged) {
			hintf("%s", h)
		}
	case len(cards) > 1 && (o.png != "" || o.html != "" || o.knownHosts != ""):
		return withHints(fmt.Errorf("the input holds %s; choose one by --user or --id", plural(len(cards), "card")),
			few(listCards(cards))...)
	}
	return nil
}

func listCards(cards []card.Card) []string {
	var list []string
	for _, c := range cards {
		text := fmt.Sprintf("there is the card %q of %s", c.ID, account(c))
		if !c.Created.IsZero() {
			text += c.Created.UTC().Format(", made 2006-01-02 15:04 MST")
		}
		list = append(list, text)
	}
	return list
}

func listFindings(found []finding) []string {
	var list []string
	for _, f := range found {
		list = append(list, "there is the "+f.name())
	}
	return list
}

// account is user@host, quoted; the compact form of a card has no host name.
func account(c card.Card) string {
	host := c.Hostname
	if host == "" {
		host = c.InstanceID
	}
	return strconv.Quote(c.User + "@" + host)
}
