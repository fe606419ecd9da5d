// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/report"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/setup/debian"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// Sentinel errors of [Run]; they arrive wrapped.
var (
	ErrTable = errors.New("a login did not end as expected")
	ErrAge   = errors.New("age shows another card than totpctl")
)

// Options say how [Run] goes its way.
type Options struct {
	System vm.System // zero: Debian 12
	Module string    // top directory of this module
	Cache  string    // its .cache directory
	Work   string    // existing directory for everything that is made
	Report *report.Reporter
	Color  bool // the card's colours, for a terminal

	PullPlug bool      // the build ends without a shutdown
	Firewall *Firewall // for [Prove]: on the machine of the build; nil: none
}

// Result is where [Run] has come to.
type Result struct {
	Lab      *Lab
	Instance *Instance   // shut down
	Cards    []card.Card // of its users, in the order of their names
	Rows     login.Rows
	Places   []Place
}

// Run goes the whole way: packages, programs, Packer, base image, packer build,
// an instance's first boot, its envelopes, the cards in them, logins, and a
// search for the secrets. It returns an error for the first thing that is not as
// expected. The instance is shut down then.
func Run(ctx context.Context, o Options) (*Result, error) {
	r := o.Report
	if o.System.Suite == "" {
		o.System = vm.Debian12
	}
	res := &Result{}
	var (
		people    []*Person
		envelopes []Envelope
	)
	defer func() {
		if res.Instance != nil {
			res.Instance.Cut()
		}
	}()
	steps := []struct {
		title string
		do    func() error
	}{
		{"Debian packages", func() error {
			if err := debian.Ensure(ctx, debian.Demo, r.Lines("")); err != nil {
				return err
			}
			return vm.Available()
		}},
		{"Build the plugin and totpctl", func() error { return BuildPrograms(ctx, o.Module, r) }},
		{"Packer, its QEMU plugin, and a base image", func() (err error) {
			res.Lab, err = NewLab(ctx, o.System, o.Module, o.Cache, o.Work, r)
			return err
		}},
		{"packer build: a " + o.System.Name + " image whose logins demand key and code", func() error { return res.Lab.Bake(ctx) }},
		{"Boot an instance, for two users with recipients and one without", func() (err error) {
			if people, err = res.Lab.People(ctx); err != nil {
				return err
			}
			if res.Instance, err = res.Lab.NewInstance(ctx, "web1", people); err != nil {
				return err
			}
			if err := res.Instance.Boot(ctx); err != nil {
				return err
			}
			for _, p := range people {
				r.Sayf("%s: login key, %s", p.Name, described(p))
			}
			if envelopes, err = res.Instance.Await(ctx, nil); err != nil {
				return err
			}
			for _, e := range envelopes {
				r.Sayf("received at the virtio port: %s", filepath.Base(e.File))
			}
			return res.Instance.Machine.WaitUp(ctx)
		}},
		{"Open the envelopes with their owners' identities", func() (err error) {
			res.Cards, err = openAll(ctx, res.Instance, envelopes, o)
			return err
		}},
		{"Log in", func() (err error) {
			res.Rows, err = res.Instance.Logins(ctx, res.Cards)
			if len(res.Rows) > 0 {
				r.Show(res.Rows.String())
			}
			if err == nil && !res.Rows.OK() {
				err = ErrTable
			}
			return err
		}},
		{"Look for ordering cycles in its boot", func() error { return res.Instance.OrderingCycles(ctx, res.Cards[0]) }},
		{"Shut the instance down", func() error { return res.Instance.PowerOff(ctx) }},
		{"Search its disk and this machine for the secrets", func() (err error) {
			res.Places, err = res.Instance.Search(ctx, res.Cards)
			r.Show(ShowPlaces(res.Places))
			return err
		}},
	}
	for _, s := range steps {
		if err := r.Step(s.title, s.do); err != nil {
			return res, err
		}
	}
	return res, nil
}

func described(p *Person) string {
	if !p.Enrolled() {
		return "no recipient: not enrolled"
	}
	return "card sealed to " + p.Recipient
}

// openAll opens each envelope with totpctl and with age, and shows the first
// card.
func openAll(ctx context.Context, i *Instance, envelopes []Envelope, o Options) ([]card.Card, error) {
	var cards []card.Card
	for n, e := range envelopes {
		c, err := i.Open(ctx, e)
		if err != nil {
			return nil, err
		}
		cards = append(cards, c)
		if n == 0 {
			page, err := i.Page(ctx, e, o.Color)
			if err != nil {
				return nil, err
			}
			o.Report.Sayf("$ totpctl open -i %s %s", filepath.Base(e.Owner.Identity), filepath.Base(e.File))
			o.Report.Show(page)
		}
		text, same, err := i.OpenWithAge(ctx, e)
		if err != nil {
			return nil, err
		}
		if same.Secret != c.Secret || !slices.Equal(same.BackupCodes, c.BackupCodes) || !strings.Contains(text, "█") {
			return nil, fmt.Errorf("%s: %w", e.File, ErrAge)
		}
		o.Report.Sayf("$ age -d -i %s %s: the same card, %d lines with its QR code",
			filepath.Base(e.Owner.Identity), filepath.Base(e.File), strings.Count(text, "\n"))
	}
	slices.SortFunc(cards, func(a, b card.Card) int { return strings.Compare(a.User, b.User) })
	return cards, nil
}

// Logins makes the table of logins with cards of the instance.
func (i *Instance) Logins(ctx context.Context, cards []card.Card) (login.Rows, error) {
	r := i.lab.Report
	server, err := i.Server(cards[0])
	if err != nil {
		return nil, err
	}
	r.Sayf("the host keys are those of the card; nothing is trusted on first use")
	dir, err := os.MkdirTemp(i.dir, "clients-")
	if err != nil {
		return nil, err
	}
	plan := login.Plan{
		Server: server,
		Dir:    dir,
		Step:   func(text string) { r.Sayf("%s", text) },
		Wait:   func(why string, d time.Duration) { r.Sayf("waiting %.0f s for %s", d.Seconds(), why) },
	}
	for _, c := range cards {
		a, err := i.Account(c)
		if err != nil {
			return nil, err
		}
		plan.Enrolled = append(plan.Enrolled, a)
	}
	for _, p := range i.People {
		if !p.Enrolled() {
			plan.Stranger = &login.Account{User: p.Name, Key: p.Key, Password: p.Password}
		}
	}
	return login.Table(ctx, plan)
}

// Enter logs in once with a card: key and a fresh code.
func (i *Instance) Enter(ctx context.Context, c card.Card) (login.Result, error) {
	server, err := i.Server(c)
	if err != nil {
		return login.Result{}, err
	}
	a, err := i.Account(c)
	if err != nil {
		return login.Result{}, err
	}
	dir, err := os.MkdirTemp(i.dir, "clients-")
	if err != nil {
		return login.Result{}, err
	}
	return login.Enter(ctx, login.OpenSSH{Dir: dir}, server, a)
}
