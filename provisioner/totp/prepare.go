// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/config"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/agentbin"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// What Prepare can find wrong besides the rules of package policy and
// agentbin.ErrNotEmbedded.
var (
	ErrTwoPolicies    = errors.New("cannot stand beside policy_file")
	ErrPolicyFile     = errors.New("cannot be read")
	ErrExecuteCommand = errors.New("cannot be rendered")
	ErrNoPath         = errors.New("does not contain {{ .Path }}")
	ErrRemoteFolder   = errors.New("is not a directory's absolute path of letters, digits and /._+@,-")
	ErrReport         = errors.New("is not a file that can be written")
)

const (
	defaultExecuteCommand = "{{ if .Sudo }}sudo -n {{ end }}sh '{{ .Path }}'"
	defaultRemoteFolder   = "/tmp"
)

// The communicator's scp takes the path as a part of a command line.
var remoteFolder = regexp.MustCompile(`^/[A-Za-z0-9/._+@,-]*$`)

// Prepare reads the block, and reports all that is wrong with it at once.
func (p *Provisioner) Prepare(raws ...any) error {
	p.config = Config{}
	err := config.Decode(&p.config, &config.DecodeOpts{
		PluginType:         "totp",
		Interpolate:        true,
		InterpolateContext: &p.config.ctx,
		InterpolateFilter:  &interpolate.RenderFilter{Exclude: []string{"execute_command"}},
	}, raws...)
	if err != nil {
		return err
	}
	if p.agents == nil {
		p.agents = embedded{}
	}
	if p.config.ExecuteCommand == "" {
		p.config.ExecuteCommand = defaultExecuteCommand
	}
	if p.config.RemoteFolder == "" {
		p.config.RemoteFolder = defaultRemoteFolder
	}
	errs := p.preparePolicy()
	for _, check := range []func() error{
		p.checkExecuteCommand,
		p.checkRemoteFolder,
		p.checkReport,
		p.checkAgents,
	} {
		if err := check(); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return packersdk.MultiErrorAppend(nil, errs...)
	}
	return nil
}

// preparePolicy makes the canonical policy of the block or of its policy_file.
func (p *Provisioner) preparePolicy() []error {
	var pol *policy.Policy
	if name := p.config.PolicyFile; name != "" {
		if keys := p.config.policyKeys(); len(keys) > 0 {
			var errs []error
			for _, key := range keys {
				errs = append(errs, &policy.Error{Path: key, Rule: ErrTwoPolicies,
					Fix: "move it into the file, or write the whole policy into the block"})
			}
			return errs
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return []error{&policy.Error{Path: "policy_file", Value: name, Rule: fmt.Errorf("%w: %w", ErrPolicyFile, cause(err)),
				Fix: "relative paths start where packer runs; ${path.root} is the template's directory"}}
		}
		if pol, err = policy.Parse(policy.Image, name, data); err != nil {
			return split(err)
		}
	} else {
		pol = p.config.policy()
		if errs := pol.Validate(policy.Image); len(errs) > 0 {
			return blockErrors(errs)
		}
	}
	data, err := pol.Marshal()
	if err != nil {
		return []error{err}
	}
	p.policy = data
	p.channels = nil
	for _, c := range pol.Channels {
		p.channels = append(p.channels, cloudinit.Channel(c))
	}
	return nil
}

// policy returns the policy that the block spells out.
func (c *Config) policy() *policy.Policy {
	pol := &policy.Policy{
		Version:          policy.Version,
		Issuer:           c.Issuer,
		Enroll:           c.Enroll,
		EscrowRecipients: c.EscrowRecipients,
		RecipientsFrom:   c.RecipientsFrom,
		BackupCodes:      c.BackupCodes,
		RateLimit:        c.RateLimit,
		Require:          c.Require,
		Jitter:           c.Jitter,
		Keep:             c.Keep,
		TimeSync:         c.TimeSync,
		Firewall:         c.Firewall,
		Packages:         c.Packages,

		CloudInitModule:       c.CloudInitModule,
		CloudInitModuleListed: c.CloudInitModuleListed,
	}
	if c.SSHD != nil {
		pol.SSHD = policy.SSHD(*c.SSHD)
	}
	if c.Clean != nil {
		pol.Clean = policy.Clean(*c.Clean)
	}
	for _, u := range c.Users {
		pol.Users = append(pol.Users, policy.User{Name: u.Name, Recipients: u.Recipients})
	}
	for _, ch := range c.Channels {
		pol.Channels = append(pol.Channels, policy.Channel(ch))
	}
	return pol
}

// policyKeys returns the keys of the policy that the block sets.
func (c *Config) policyKeys() []string {
	set := map[string]bool{
		"issuer":            c.Issuer != "",
		"enroll":            c.Enroll != "",
		"user":              len(c.Users) > 0,
		"escrow_recipients": c.EscrowRecipients != nil,
		"recipients_from":   c.RecipientsFrom != nil,
		"backup_codes":      c.BackupCodes != 0,
		"rate_limit":        c.RateLimit != "",
		"require":           c.Require != "",
		"channel":           len(c.Channels) > 0,
		"jitter":            c.Jitter != "",
		"keep":              c.Keep != "",
		"sshd":              c.SSHD != nil,
		"time_sync":         c.TimeSync != "",
		"firewall":          c.Firewall != "",
		"packages":          c.Packages != "",

		"cloud_init_module":        c.CloudInitModule,
		"cloud_init_module_listed": c.CloudInitModuleListed,
		"clean":                    c.Clean != nil,
	}
	var keys []string
	for key, is := range set {
		if is {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// blockErrors names fields as the block has them: user[0] is its first user
// block, where a policy file has users[0].
func blockErrors(errs policy.Errors) []error {
	var out []error
	for _, e := range errs {
		c := *e
		for file, block := range map[string]string{"users": "user", "channels": "channel"} {
			if rest, ok := strings.CutPrefix(c.Path, file); ok && (rest == "" || rest[0] == '[') {
				c.Path = block + rest
			}
		}
		out = append(out, &c)
	}
	return out
}

// split takes an error of package policy apart into its single problems.
func split(err error) []error {
	var errs policy.Errors
	if !errors.As(err, &errs) {
		return []error{err}
	}
	return errs.Unwrap()
}

func (p *Provisioner) checkExecuteCommand() error {
	// The text may hold a password, so that it is not part of the error.
	if !regexp.MustCompile(`\{\{[^}]*\.Path\b`).MatchString(p.config.ExecuteCommand) {
		return &policy.Error{Path: "execute_command", Rule: ErrNoPath, Fix: "without it nothing of ours is run"}
	}
	return nil
}

func (p *Provisioner) checkRemoteFolder() error {
	if dir := p.config.RemoteFolder; !remoteFolder.MatchString(dir) || path.Clean(dir) != dir {
		return &policy.Error{Path: "remote_folder", Value: dir, Rule: ErrRemoteFolder, Fix: "leave it out for " + defaultRemoteFolder}
	}
	return nil
}

// checkReport finds out before the build what would fail after it.
func (p *Provisioner) checkReport() error {
	name := p.config.Report
	if name == "" {
		return nil
	}
	bad := func(err error, fix string) error {
		return &policy.Error{Path: "report", Value: name, Rule: fmt.Errorf("%w: %w", ErrReport, err), Fix: fix}
	}
	if st, err := os.Stat(filepath.Dir(name)); err != nil {
		return bad(cause(err), "make its directory first")
	} else if !st.IsDir() {
		return bad(fmt.Errorf("%q is not a directory", filepath.Dir(name)), "choose another name")
	}
	if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() {
		return bad(errors.New("it exists and is not a file"), "choose another name")
	}
	return nil
}

func (p *Provisioner) checkAgents() error {
	if len(p.agents.Archs()) == 0 {
		return &policy.Error{Path: "plugin", Rule: agentbin.ErrNotEmbedded,
			Fix: "build it with `make build`, since `go build` alone embeds no agents"}
	}
	return nil
}

// cause drops the operation and the name from an error of package os: the field
// and its value are said already.
func cause(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
