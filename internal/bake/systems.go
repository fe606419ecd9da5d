// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A system is a row of the table of systems that can be baked. What differs
// between them is data here, and branches nowhere.
type system struct {
	id, versionID string // as in os-release(5)
	andLater      bool   // later versions too
	name          string // for people
	support       Support
	onRequest     bool // baked only where Options.AllowUntested says so

	pamPackage, sshPackage string
	clientPackage          string // with ssh(1), where sshPackage does not bring it
	timePackage            string // an NTP client, for where there is none
	epel                   bool   // pamPackage is in EPEL
	pamPassword            string // the line of the PAM service sshd that asks for a password

	// How the distribution's unit starts sshd: program and arguments, and the
	// arguments after those that we put in between.
	sshdStart, sshdRest string
	sshService          string // the distribution's unit
	sshUnit             string // its file
	sshSocket           string // the unit that starts one sshd a connection

	// Its units for one sshd a connection, for that socket or for those of
	// systemd-ssh-generator, and how they start sshd. Those that a version does not
	// have do no harm.
	sshTemplates []string
	sshdInetd    string

	dpkg bool // its packages are dpkg's; else rpm's
}

// Support says how far a system is known to work.
type Support string

const (
	// Proven: by logins in a real root and in booted machines, at every change.
	Proven Support = "proven"
	// Untested: accepted with a warning; the self-test is not to be skipped.
	Untested Support = "untested"
)

// systems, of which the first that matches counts.
var systems = []system{
	debian("11", "ssh@.service"),
	debian("12"), // has none
	debian("13", "sshd@.service"),
	ubuntu("22.04", "ssh@.service", "sshd@.service"),
	redhat("rhel", "RHEL", "9"),
	redhat("rocky", "Rocky Linux", "9"),
	redhat("almalinux", "AlmaLinux", "9"),
	redhat("fedora", "Fedora", "41"),
}

func debian(version string, templates ...string) system {
	return system{
		id: "debian", versionID: version, name: "Debian " + version, support: Proven,
		pamPackage:   "libpam-google-authenticator",
		sshPackage:   "openssh-server",
		timePackage:  "systemd-timesyncd",
		pamPassword:  "@include common-auth",
		sshdStart:    target.SSHD + " -D",
		sshdRest:     "$SSHD_OPTS",
		sshService:   "ssh.service",
		sshUnit:      target.SystemdVendorDir + "/ssh.service",
		sshSocket:    "ssh.socket",
		sshTemplates: templates,
		sshdInetd:    "-" + target.SSHD + " -i",
		dpkg:         true,
	}
}

// ubuntu is Debian as far as a bake looks at it. Its images start sshd by
// ssh.socket, which bake masks, and have 60-cloudimg-settings.conf, which sorts
// after ours.
func ubuntu(since string, templates ...string) system {
	s := debian(since, templates...)
	s.id, s.name, s.andLater, s.support = "ubuntu", "Ubuntu", true, Untested
	return s
}

// matches tells whether the row is about a system.
func (s system) matches(o target.OS) bool {
	if s.id != o.ID || s.versionID == o.VersionID || !s.andLater {
		return s.id == o.ID && s.versionID == o.VersionID
	}
	return laterVersion(o.VersionID, s.versionID)
}

// laterVersion compares versions of numbers and dots, such as "24.04".
func laterVersion(version, than string) bool {
	a, b := strings.Split(version, "."), strings.Split(than, ".")
	for i := range min(len(a), len(b)) {
		x, err1 := strconv.Atoi(a[i])
		y, err2 := strconv.Atoi(b[i])
		if err1 != nil || err2 != nil {
			return false
		}
		if x != y {
			return x > y
		}
	}
	return len(a) >= len(b)
}

// Facts are what the machine is.
type facts struct {
	system
	arch    string
	openSSH target.OpenSSH
	policy  *policy.Policy // with its defaults
	baked   bool           // it was baked before
}

// factsOf looks at the machine. The policy may be nil, for the defaults.
func factsOf(t *target.Target, p *policy.Policy) (*facts, error) {
	if p == nil {
		p = new(policy.Policy)
	}
	f := &facts{policy: p.WithDefaults(), baked: t.Exists(target.ImagePolicy)}
	o, err := t.OS()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSystem, err)
	}
	if i := slices.IndexFunc(systems, func(s system) bool { return s.matches(o) }); i >= 0 {
		f.system = systems[i]
		if f.andLater {
			f.versionID, f.name = o.VersionID, f.name+" "+o.VersionID
		}
	}
	if f.name == "" {
		return nil, fmt.Errorf("%s: %q (ID %q, VERSION_ID %q): %w; supported: %s",
			target.OSRelease, o.PrettyName, o.ID, o.VersionID, ErrSystem, supported())
	}
	if f.arch, err = t.Arch(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSystem, err)
	}
	return f, nil
}

func supported() string {
	var names, onRequest []string
	for _, s := range systems {
		name := s.name
		if s.andLater {
			name += " " + s.versionID + " and newer"
		}
		if s.onRequest {
			onRequest = append(onRequest, name)
		} else {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ") + "; and untested, with allow_untested_system = true: " + strings.Join(onRequest, ", ")
}

// system looks before anything is changed: at what the machine is, and at
// everything in it that a bake does not understand.
func (b *baker) system(context.Context) (string, error) {
	var err error
	if b.facts, err = factsOf(b.t, b.Policy); err != nil {
		return "", err
	}
	if b.facts.onRequest && !b.AllowUntested {
		return "", fmt.Errorf("%s: %q: %w; to bake it all the same, set allow_untested_system = true (totp-agent bake --allow-untested-system): the self-test is then not to be skipped",
			target.OSRelease, b.facts.name, ErrUntested)
	}
	if err := b.checkAgent(); err != nil {
		return "", err
	}
	// Where sshd is not there yet, its package brings these files as we know
	// them; they are looked at again after that.
	if b.t.Exists(target.SSHD) {
		err = errors.Join(b.understand()...)
	}
	said := fmt.Sprintf("%s, %s", b.facts.name, b.facts.arch)
	if b.facts.support != Proven {
		said += "; WARNING: nobody has tested this on " + b.facts.name + "; the self-test decides"
	}
	return said, err
}

// understand refuses what was customised in a way that a bake would break, or
// that would break the bake.
func (b *baker) understand() []error {
	_, _, _, pam := b.facts.pamWanted(b.t, false)
	return []error{pam, writableProblems(b.t).err(), b.facts.unitProblems(b.t).err(), b.facts.cloudInit(b.t)}
}

// version asks sshd who it is and makes the plan of all files.
func (b *baker) version(ctx context.Context) (string, error) {
	if err := errors.Join(b.understand()...); err != nil {
		return "", err
	}
	var err error
	if b.plan, err = b.facts.plan(ctx, b.t); err != nil {
		return "", err
	}
	if err := b.facts.planList(ctx, b.t, b.plan); err != nil {
		return "", err
	}
	if err := b.facts.policyProblem(b.t); err != nil {
		return "", err
	}
	return "OpenSSH " + b.facts.openSSH.String() + b.facts.cryptoRemark(b.t), nil
}

// modulePath is where the PAM module is; empty where it is not.
func (f *facts) modulePath(t *target.Target) string { return f.moduleFile(t, target.PAMModule) }

func (f *facts) moduleFile(t *target.Target, name string) string {
	for _, dir := range target.PAMModuleDirs[f.arch] {
		if p := path.Join(dir, name); t.IsRegular(p) {
			return p
		}
	}
	return ""
}
