// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/clean"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

// A Report says what stands in the image. It is kept in the image as
// /var/lib/totp-agent/report.json, and holds no times: a bake that changes
// nothing does not change it.
type Report struct {
	Version  int               `json:"version"` // of this format: 1
	Agent    string            `json:"agent"`   // version of the agent
	System   ReportSystem      `json:"system"`
	OpenSSH  string            `json:"openssh"`
	Packages map[string]string `json:"packages"` // name → version
	Policy   string            `json:"policy"`   // the image's policy in canonical YAML; it holds no credentials
	Files    []ReportFile      `json:"files"`
	Links    map[string]string `json:"links"` // enabled and masked units: link → destination

	// Time is what keeps the clock right; missing where the policy leaves that alone.
	Time *ReportTime `json:"time,omitempty"`

	// Firewall are the firewalls that are active; none where the policy leaves them
	// alone.
	Firewall []ReportFirewall `json:"firewall,omitempty"`

	// Relabelled are the paths that restorecon was asked to give their SELinux
	// labels; none where there is no restorecon.
	Relabelled []string `json:"relabelled,omitempty"`

	// SSHD are the settings that sshd itself says it uses: user → keyword in
	// lower case → value. The user "totp-no-such-user" stands for every name
	// without an account.
	SSHD map[string]map[string]string `json:"sshd"`

	// SelfTest is what logins have shown since the bake.
	SelfTest []SelfTestRow `json:"selftest,omitempty"`

	// Clean is what was removed from the image, and what is left. The bake itself
	// does not clean.
	Clean *clean.Report `json:"clean,omitempty"`
}

// ReadReport reads the report of the last bake.
func ReadReport(t *target.Target) (*Report, error) {
	b, err := t.ReadFile(target.Report)
	if err != nil {
		return nil, err
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%s: %w; bake again", target.Report, err)
	}
	return r, nil
}

// Write makes r the machine's report.
func (r *Report) Write(t *target.Target) error {
	text, err := r.text()
	if err != nil {
		return err
	}
	return t.WriteFile(target.Report, text, 0o600)
}

func (r *Report) text() ([]byte, error) {
	text, err := json.MarshalIndent(r, "", "  ")
	return append(text, '\n'), err
}

// ReportSystem is the machine that was baked.
type ReportSystem struct {
	ID        string  `json:"id"`         // "debian"
	VersionID string  `json:"version_id"` // "12"
	Name      string  `json:"name"`
	Arch      string  `json:"arch"` // in Go's words
	Support   Support `json:"support"`
}

// A ReportTime is the NTP client of the machine.
type ReportTime struct {
	Service string   `json:"service"` // its unit; empty: there is none that starts
	Links   []string `json:"links"`   // by which a bake has enabled it; none: it was
}

// A ReportFirewall is a firewall that is active.
type ReportFirewall struct {
	Name    string   `json:"name"`    // "ufw"
	Allowed []string `json:"allowed"` // what a bake had it let through: "22/tcp in"; none: it did
	Denied  []string `json:"denied"`  // what forbids it and is the administrator's, and was left
}

// A ReportFile is one file that was written or changed.
type ReportFile struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"` // hex
	Mode   string `json:"mode"`   // octal: "0600"
}

// A SelfTestRow is one login of the self-test.
type SelfTestRow struct {
	Name     string `json:"name"`
	User     string `json:"user"`     // a throw-away account, or one that the policy names
	Expected string `json:"expected"` // the dialogue, step by step
	Seen     string `json:"seen"`
	OK       bool   `json:"ok"`
}

// ReportSelfTest puts the rows of a self-test into the report.
func ReportSelfTest(t *target.Target, rows []SelfTestRow) error {
	r, err := ReadReport(t)
	if err != nil || slices.Equal(r.SelfTest, rows) {
		return err
	}
	r.SelfTest = rows
	return r.Write(t)
}

// report writes the report, and is the last step.
func (b *baker) report(ctx context.Context) (*Report, string, error) {
	r := &Report{
		Version:  1,
		Agent:    version.String(),
		System:   ReportSystem{b.facts.id, b.facts.versionID, b.facts.name, b.facts.arch, b.facts.support},
		OpenSSH:  b.facts.openSSH.String(),
		Packages: b.facts.versions(ctx, b.t, b.facts.pamPackage, b.facts.sshPackage),
		Links:    map[string]string{},
		SSHD:     b.effective,

		Relabelled: b.plan.labelled(b.t),
	}
	b.reportChanges(r)
	if b.Policy != nil {
		text, err := b.Policy.Marshal()
		if err != nil {
			return nil, "", err
		}
		r.Policy = string(text)
	}
	paths := b.plan.paths()
	if _, _, ours, err := b.facts.moduli(b.t); err == nil && ours {
		paths = append(paths, target.Moduli)
	}
	for _, p := range paths {
		if p == target.Report {
			continue
		}
		f, err := reportFile(b.t, p)
		if err != nil {
			return nil, "", err
		}
		r.Files = append(r.Files, f)
	}
	for _, l := range b.plan.links {
		dest, err := b.t.Readlink(l.path)
		if err != nil {
			return nil, "", err
		}
		r.Links[l.path] = dest
	}
	text, err := r.text()
	if err != nil {
		return nil, "", err
	}
	changed, err := b.journal.write(target.Report, text, 0o600)
	return r, target.Report + said(changed), err
}

// reportChanges adds what the bake has changed in what is not its own. What an
// earlier one has changed, this one found done: it is in that one's report.
func (b *baker) reportChanges(r *Report) {
	r.Time, r.Firewall = b.clockKept, b.firewalls
	old, err := ReadReport(b.t)
	if err != nil {
		return
	}
	if r.Time != nil && old.Time != nil && old.Time.Service == r.Time.Service {
		for _, l := range old.Time.Links {
			if _, err := b.t.Readlink(l); err == nil && !slices.Contains(r.Time.Links, l) {
				r.Time.Links = append(r.Time.Links, l)
			}
		}
	}
	for i := range r.Firewall {
		f := &r.Firewall[i]
		for _, was := range old.Firewall {
			for _, a := range was.Allowed {
				if was.Name == f.Name && !slices.Contains(f.Allowed, a) {
					f.Allowed = append(f.Allowed, a)
				}
			}
		}
	}
}

func reportFile(t *target.Target, name string) (ReportFile, error) {
	fi, err := t.Lstat(name)
	if err != nil {
		return ReportFile{}, err
	}
	sum, err := hashFile(t, name)
	return ReportFile{Path: name, SHA256: sum, Mode: fmt.Sprintf("%04o", fi.Mode().Perm())}, err
}
