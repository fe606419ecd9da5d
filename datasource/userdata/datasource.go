// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package userdata is the Packer data source totp-userdata: the cloud-init
// document of an instance of a baked image, for cd_content and the user_data of
// builders, and the ticket by which its owner recognises the instance's cards.
//
// # Promises
//
// Configure reports every mistake of the block at once, each with the path of
// its field, and refuses a document that certainly locks its users out. What may do so
// is in the output warnings, and in Packer's log. What Execute returns, the agent
// takes. Token and ticket are masked
// in the plugin's logs. Both are one line, so that Packer masks them wherever it
// prints them, if the template makes them sensitive.
//
// # Limits
//
// Each evaluation makes a token of its own: document and ticket of one build
// belong together, and to no other. A template that stores only one of them has
// a document that nobody can check.
package userdata

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/packer-plugin-sdk/hcl2helper"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/zclconf/go-cty/cty"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
)

// What Configure can find wrong besides the rules of package cloudinit.
var (
	ErrTwoPolicies = errors.New("cannot stand beside policy_file")
	ErrFile        = errors.New("cannot be read")
	ErrProvider    = errors.New("is no provider that is known")
	ErrLifetime    = errors.New("is no duration from now on")
	ErrVendor      = errors.New("cannot be had for a vendor's layer")
	ErrNotInPolicy = errors.New("is not a user of the policy file")
)

// Datasource is the data source totp-userdata. Its zero value is ready for
// Configure.
type Datasource struct {
	config   Config
	spec     cloudinit.Spec
	image    *cloudinit.Image
	provider cloudinit.Provider
	lifetime time.Duration
	warnings []string
}

// ConfigSpec returns what the HCL block may contain.
func (d *Datasource) ConfigSpec() hcldec.ObjectSpec { return d.config.FlatMapstructure().HCL2Spec() }

// OutputSpec returns what the data source gives to a template.
func (d *Datasource) OutputSpec() hcldec.ObjectSpec {
	return new(DatasourceOutput).FlatMapstructure().HCL2Spec()
}

// Configure reads the block, and reports all that is wrong with it at once.
func (d *Datasource) Configure(raws ...any) error {
	*d = Datasource{}
	// Without the interpolation of Packer's old templates, which HCL does not need:
	// what stands in braces in merge is cloud-init's, and not a byte of it is changed.
	if err := config.Decode(&d.config, &config.DecodeOpts{PluginType: "totp-userdata"}, raws...); err != nil {
		return err
	}
	var errs []error
	fail := func(path, value string, rule error, fix string) {
		errs = append(errs, &cloudinit.Error{Path: path, Value: value, Rule: rule, Fix: fix})
	}
	var ok bool
	if d.provider, ok = cloudinit.FindProvider(d.config.Provider); !ok {
		fail("provider", d.config.Provider, ErrProvider, "leave it out for a size that fits everywhere; totpctl user-data --for list shows them")
	}
	d.lifetime = cloudinit.TicketLifetime
	if text := d.config.TicketLifetime; text != "" {
		var err error
		if d.lifetime, err = time.ParseDuration(text); err != nil || d.lifetime <= 0 {
			fail("ticket_lifetime", text, ErrLifetime, `write it as in "168h"`)
		}
	}
	if d.config.Vendor && d.config.Ticket {
		fail("ticket", "", ErrVendor, "the ticket belongs to the instance's user-data")
	}
	if name := d.config.ImageReport; name != "" {
		if data, err := os.ReadFile(name); err != nil {
			errs = append(errs, unreadable("image_report", name, err))
		} else if d.image, err = cloudinit.ParseReport(name, data); err != nil {
			errs = append(errs, split(err)...)
		}
	}
	if specErrs := d.readSpec(); len(specErrs) > 0 {
		errs = append(errs, specErrs...)
	} else if _, err := d.spec.Layer(); err != nil {
		errs = append(errs, split(err)...)
	} else {
		if d.image != nil {
			errs = append(errs, split(d.spec.Fits(d.image))...)
		}
		errs = append(errs, d.review()...)
	}
	if len(errs) > 0 {
		return packersdk.MultiErrorAppend(nil, blockErrors(errs)...)
	}
	return nil
}

// review keeps the warnings about the document, and returns what certainly keeps its
// users out.
func (d *Datasource) review() []error {
	var own []byte
	if d.config.Merge != "" {
		own = []byte(d.config.Merge)
	}
	warnings, errs := d.spec.Review(cloudinit.Host{Provider: d.provider, Image: d.image}, "merge", own)
	for _, err := range blockErrors(warnings.Unwrap()) {
		d.warn(err.Error())
	}
	for _, name := range d.spec.Unread(d.image) {
		d.warn(fmt.Sprintf("user %q: no recipient is named, so that there will be no card unless the image or the provider names one", name))
	}
	return errs.Unwrap()
}

// warn keeps a warning for the output. A data source has no way to print, but for
// Packer's log.
func (d *Datasource) warn(text string) {
	d.warnings = append(d.warnings, text)
	log.Printf("[WARN] totp-userdata: %s", text)
}

// readSpec makes the spec of the block, or of its policy_file.
func (d *Datasource) readSpec() []error {
	c := d.config
	d.spec = cloudinit.Spec{Vendor: c.Vendor, Issuer: c.Issuer, EscrowRecipients: c.EscrowRecipients, BackupCodes: c.BackupCodes}
	if c.PolicyFile == "" {
		for _, ch := range c.Channels {
			d.spec.Channels = append(d.spec.Channels, cloudinit.Channel{Type: ch.Type, Port: ch.Port, Device: ch.Device})
		}
		for _, u := range c.Users {
			d.spec.Users = append(d.spec.Users, cloudinit.User{Name: u.Name, Recipients: u.Recipients, SSHKeys: u.SSHKeys, Sudo: u.Sudo, Shell: u.Shell})
		}
		return nil
	}
	var errs []error
	for key, set := range map[string]bool{
		"issuer": c.Issuer != "", "escrow_recipients": c.EscrowRecipients != nil, "backup_codes": c.BackupCodes != 0, "channel": len(c.Channels) > 0,
	} {
		if set {
			errs = append(errs, &cloudinit.Error{Path: key, Rule: ErrTwoPolicies, Fix: "move it into the file"})
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	data, err := os.ReadFile(c.PolicyFile)
	if err != nil {
		return append(errs, unreadable("policy_file", c.PolicyFile, err))
	}
	if d.spec, err = cloudinit.Parse(c.PolicyFile, data, c.Vendor); err != nil {
		return append(errs, split(err)...)
	}
	for i, u := range c.Users {
		path := fmt.Sprintf("user[%d]", i)
		if len(u.Recipients) > 0 {
			errs = append(errs, &cloudinit.Error{Path: path + ".recipients", Rule: ErrTwoPolicies, Fix: "move them into the file"})
		}
		at := slices.IndexFunc(d.spec.Users, func(s cloudinit.User) bool { return s.Name == u.Name })
		if at < 0 {
			errs = append(errs, &cloudinit.Error{Path: path + ".name", Value: u.Name, Rule: ErrNotInPolicy, Fix: "add it there, with its recipients"})
			continue
		}
		d.spec.Users[at].SSHKeys, d.spec.Users[at].Sudo, d.spec.Users[at].Shell = u.SSHKeys, u.Sudo, u.Shell
	}
	return errs
}

// Execute returns the document and the ticket.
func (d *Datasource) Execute() (cty.Value, error) {
	none := cty.NullVal(cty.EmptyObject)
	spec := d.spec
	var out DatasourceOutput
	if d.config.Ticket {
		if spec.Token != "" {
			return none, &cloudinit.Error{Path: "policy_file", Rule: cloudinit.ErrTwoTokens, Fix: "leave it out: ticket = true makes one"}
		}
		var random [16]byte
		rand.Read(random[:]) // never fails
		spec.Token = cloudinit.Token(random)
		now := time.Now()
		t, err := spec.Ticket(d.image, now, now.Add(d.lifetime))
		if err != nil {
			return none, err
		}
		text, err := t.Marshal()
		if err != nil {
			return none, err
		}
		// Packer masks a value where it stands in one line.
		var line bytes.Buffer
		if err := json.Compact(&line, text); err != nil {
			return none, err
		}
		out.Ticket = line.String()
		packersdk.LogSecretFilter.Set(out.Ticket)
	}
	if out.Token = spec.Token; out.Token != "" {
		packersdk.LogSecretFilter.Set(out.Token)
	}
	var doc []byte
	var err error
	if d.config.Merge == "" {
		doc, err = spec.Document()
	} else {
		doc, err = spec.Merge("merge", []byte(d.config.Merge))
	}
	if err != nil {
		return none, err
	}
	if err := d.provider.Check(doc); err != nil {
		return none, err
	}
	out.UserData = string(doc)
	for _, err := range spec.Unfit(d.image) {
		d.warn(err.Error())
	}
	out.Warnings = append([]string{}, d.warnings...)
	return hcl2helper.HCL2ValueFromConfig(out, d.OutputSpec()), nil
}

func unreadable(path, name string, err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return &cloudinit.Error{Path: path, Value: name, Rule: fmt.Errorf("%w: %w", ErrFile, err),
		Fix: "relative paths start where packer runs; ${path.root} is the template's directory"}
}

// split takes an error of package cloudinit apart into its single problems.
func split(err error) []error {
	var errs cloudinit.Errors
	switch {
	case err == nil:
		return nil
	case errors.As(err, &errs):
		return errs.Unwrap()
	}
	return []error{err}
}

// blockErrors names fields as the block has them: user[0] is its first user
// block.
func blockErrors(errs []error) []error {
	for _, err := range errs {
		var e *cloudinit.Error
		if errors.As(err, &e) && e.File == "" {
			for list, block := range map[string]string{"users": "user", "channels": "channel"} {
				if rest, ok := strings.CutPrefix(e.Path, list); ok && (rest == "" || rest[0] == '[') {
					e.Path = block + rest
				}
			}
		}
	}
	return errs
}
