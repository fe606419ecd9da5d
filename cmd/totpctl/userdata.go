// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/seed"
)

type userDataOptions struct {
	spec     specFlags
	merge    string
	provider string
	vendor   bool
	ticket   string
	lifetime time.Duration
	report   string
	output   string
	seedDir  string
	seedISO  string
	hostname string
}

func newUserDataCommand() *cobra.Command {
	var o userDataOptions
	cmd := &cobra.Command{
		Use:   "user-data --user NAME --recipient R [--ssh-key FILE] [OPTION]...",
		Short: "Make the cloud-init user-data of an instance",
		Annotations: map[string]string{
			alsoUsed: "totpctl user-data --policy FILE [OPTION]...\n    totpctl user-data --for list",
		},
		Long: `Makes the cloud-init document that tells an instance of a baked image who is
enrolled and to whom the cards are sealed, and prints it.

--recipient, --ssh-key, --sudo and --shell belong to the --user before them. A
user with an SSH key is an account that cloud-init makes; one without is there
already, such as the image's own user or root.

With --merge the document of your own is kept as it is, byte by byte, and gets
what is needed: a cloud-config in its lists, everything else (a script, a MIME
multi-part, an archive, gzip, a template) as a part of a multi-part. Where both
want different things, the error says at which line and column of yours.

With --ticket a token goes into the document, and what recognises it into FILE.
"totpctl open --ticket FILE" then refuses a card that is not from the instance
which got this document. Name the image's report, so that it knows who else may
read the cards and whether the image takes this document at all.

--for checks the document for a provider: its size, and with --image-report
whether the card can leave the server by a channel of the image or the document.

--vendor makes the provider's layer, for vendor-data: issuer, channels and users,
which stay beside what customers write.`,
		Example: `    $ totpctl user-data --user alice --ssh-key alice.pub --recipient age1… -o user-data

    $ totpctl user-data --user debian -R alice.txt --merge web.yaml --for hetzner

    $ totpctl user-data --policy alice.yaml --ticket alice.ticket \
          --image-report totp-report.json --seed-iso seed.iso --hostname web-1

    $ totpctl user-data --vendor --issuer "Example Hosting" --channel virtio`,
		Args: atMost(0),
		RunE: runs(func(cmd *cobra.Command, _ []string) error { return userData(o) }),
	}
	f := cmd.Flags()
	f.SortFlags = false
	o.spec.add(f)
	f.StringVar(&o.merge, "merge", "", "put it into your own document in `FILE` (- is standard input)")
	f.StringVar(&o.provider, "for", "", "check size and channels for a `PROVIDER`; list shows them")
	f.StringVar(&o.ticket, "ticket", "", "put a token in, and write the ticket to the new `FILE`")
	f.DurationVar(&o.lifetime, "ticket-lifetime", cloudinit.TicketLifetime, "how long the ticket waits for the first card, as `168h`")
	f.StringVar(&o.report, "image-report", "", "the report of the image's bake is in `FILE`")
	f.BoolVar(&o.vendor, "vendor", false, "make the provider's layer, for vendor-data")
	f.StringVarP(&o.output, "output", "o", "", "write to the new `FILE`")
	f.StringVar(&o.seedDir, "seed-dir", "", "write a NoCloud seed to the new directory `DIR`")
	f.StringVar(&o.seedISO, "seed-iso", "", "write a NoCloud seed as the new image `FILE`")
	f.StringVar(&o.hostname, "hostname", "", "with a seed: the machine's `NAME`")
	return cmd
}

// check finds what is wrong with the options, before anything is read.
func (o userDataOptions) check() error {
	switch {
	case o.hostname != "" && o.seedDir == "" && o.seedISO == "":
		return usageErrorf("--hostname %q: has no use without a seed; write it into your own document", o.hostname)
	case strings.Trim(o.hostname, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") != "":
		return usageErrorf("--hostname %q: use letters, digits, - and .", o.hostname)
	case o.vendor && o.ticket != "":
		return usageErrorf("--ticket: a vendor's layer has no token; the ticket belongs to the instance's user-data")
	case o.merge == "-" && o.spec.policy == "-":
		return usageErrorf("standard input is named more than once: the policy or the document must be a file")
	}
	for _, name := range []string{o.ticket, o.output, o.seedDir, o.seedISO} {
		if err := checkNew(name); err != nil {
			return err
		}
	}
	return nil
}

func userData(o userDataOptions) error {
	if o.provider == "list" {
		return writeStdout([]byte(providerTable()))
	}
	provider, ok := cloudinit.FindProvider(o.provider)
	if !ok {
		return withHints(usageErrorf("--for %q: is no provider that is known", o.provider), "totpctl user-data --for list shows them; leave it out for a size that fits everywhere")
	}
	if err := o.check(); err != nil {
		return err
	}
	spec, err := o.spec.read(o.vendor)
	if err != nil {
		return err
	}
	image, err := readReport(o.report)
	if err != nil {
		return err
	}
	if image != nil {
		if err := spec.Fits(image); err != nil {
			return specError(err)
		}
	}
	warnUnread(spec, image)
	var ticket []byte
	if o.ticket != "" {
		if spec.Token != "" {
			return fmt.Errorf("policy %q: %w; leave it out, --ticket makes one", o.spec.policy, cloudinit.ErrTwoTokens)
		}
		spec.Token = cloudinit.Token(random())
		now := time.Now()
		t, err := spec.Ticket(image, now, now.Add(o.lifetime))
		if err != nil {
			return specError(err)
		}
		if ticket, err = t.Marshal(); err != nil {
			return err
		}
	}
	for _, err := range spec.Unfit(image) {
		warningf("%v", err)
	}
	doc, err := o.document(spec, cloudinit.Host{Provider: provider, Image: image})
	if err != nil {
		return err
	}
	if err := provider.Check(doc); err != nil {
		return specError(err)
	}
	return o.write(doc, ticket)
}

// document makes the document, and warns of what may keep its users out.
func (o userDataOptions) document(spec cloudinit.Spec, host cloudinit.Host) ([]byte, error) {
	var own, doc []byte
	var err error
	if o.merge == "" {
		doc, err = spec.Document()
	} else {
		// As it is: what a byte order mark would do to it is for the merge to say.
		if own, err = readRaw(o.merge, cloudinit.MaxSize); err != nil {
			return nil, err
		}
		doc, err = spec.Merge(o.merge, own)
	}
	warnings, errs := spec.Review(host, o.merge, own)
	for _, w := range warnings {
		warningf("%v", w)
	}
	var refused cloudinit.Errors
	if errors.As(err, &refused) {
		errs, err = append(refused, errs...), nil
	}
	switch {
	case err != nil:
		return nil, err
	case len(errs) > 0:
		return nil, specError(errs)
	}
	return doc, nil
}

// write puts the document where it was asked for. The ticket comes first: a
// document without it could not be told from another.
func (o userDataOptions) write(doc, ticket []byte) (err error) {
	var done []string
	defer func() {
		if err != nil { // nobody has the document, so that nobody needs the rest
			for _, name := range done {
				os.RemoveAll(name)
			}
		}
	}()
	if ticket != nil {
		if err := writeNew(o.ticket, ticket); err != nil {
			return err
		}
		done = append(done, o.ticket)
	}
	if o.output != "" && o.output != "-" {
		if err := writeNew(o.output, doc); err != nil {
			return err
		}
		done = append(done, o.output)
	}
	if o.seedDir != "" || o.seedISO != "" {
		id := random()
		files := seed.Files("totp-"+hex.EncodeToString(id[:8]), o.hostname, doc, o.vendor)
		for _, s := range []struct {
			name  string
			write func(string, map[string][]byte) error
		}{{o.seedDir, seed.WriteDir}, {o.seedISO, seed.WriteISO}} {
			if s.name == "" {
				continue
			}
			if err := s.write(s.name, files); errors.Is(err, fs.ErrExist) {
				return existsError(s.name)
			} else if err != nil {
				return fileError(s.name, err)
			}
			done = append(done, s.name)
			syncDir(filepath.Dir(s.name))
		}
	}
	if o.output == "-" || o.output == "" && o.seedDir == "" && o.seedISO == "" {
		if err := writeStdout(doc); err != nil {
			return err
		}
	}
	if ticket != nil {
		printf("wrote the ticket to %q: totpctl open --ticket %q tells whether a card is from this instance", o.ticket, o.ticket)
	}
	return nil
}

// warnUnread tells of users for whom no recipient is in sight.
func warnUnread(spec cloudinit.Spec, image *cloudinit.Image) {
	for _, name := range spec.Unread(image) {
		warningf("user %q: no recipient is named, so that there will be no card unless the image or the provider names one", name)
	}
}

func random() (b [16]byte) {
	rand.Read(b[:]) // never fails
	return b
}

func readReport(name string) (*cloudinit.Image, error) {
	if name == "" {
		return nil, nil
	}
	data, err := readInput(name, cloudinit.MaxSize)
	if err != nil {
		return nil, err
	}
	image, err := cloudinit.ParseReport(name, data)
	return image, specError(err)
}

// providerTable is a list for people, with the limits as --for counts them.
func providerTable() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-14s %-28s %-12s %s\n", "provider", "limit", "vendor-data", "source")
	for _, p := range cloudinit.Providers() {
		vendor, source := "no", p.Source
		if p.Vendor {
			vendor = "yes"
		}
		if !p.Confirmed && p.Limit > 0 {
			source += " (from memory: not confirmed)"
		}
		fmt.Fprintf(&b, "%-14s %-28s %-12s %s\n", p.Name, p, vendor, source)
	}
	fmt.Fprintf(&b, "%-14s %-28s\n", "(without --for)", fmt.Sprintf("%d bytes", cloudinit.Budget))
	b.WriteString("\n" + channelTable())
	b.WriteString("\nvendor-data as cloud-init 25.1 and 26.2 read them: cloudinit/sources at https://github.com/canonical/cloud-init\n")
	return b.String()
}

// channelTable is a list for people of the channels that bring a card out.
func channelTable() string {
	var b strings.Builder
	row := func(name string, cell func(kind string) string) {
		fmt.Fprintf(&b, "%-14s", name)
		for _, kind := range cloudinit.ChannelKinds() {
			fmt.Fprintf(&b, " %-*s", len(kind), cell(kind))
		}
		b.WriteByte('\n')
	}
	row("card leaves by", func(kind string) string { return kind })
	for _, p := range cloudinit.Providers() {
		row(p.Name, func(kind string) string { return p.Route(kind).Availability.String() })
	}
	return b.String()
}

// specError says one problem as an error with its remedy, and several as a list.
func specError(err error) error {
	var errs cloudinit.Errors
	var one *cloudinit.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &errs) && len(errs) > 1:
		var lines []string
		for _, e := range errs {
			lines = append(lines, e.Error())
		}
		return withHints(wrap(plural(len(errs), "problem"), err), few(lines)...)
	case errors.As(err, &one) && one.Fix != "":
		short := *one
		short.Fix = ""
		return withHints(wrap(short.Error(), err), one.Fix)
	}
	return err
}
