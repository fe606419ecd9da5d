// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Kinds of leaks.
const (
	Secret    = "totp-secret"    // PAM state files wherever they are, envelopes, receipts, policy layers of instances
	HostKey   = "host-key"       // of sshd
	LoginKey  = "authorized-key" // of whoever logged in during the build
	MachineID = "machine-id"
	CloudInit = "cloud-init-state"
	CloudSeed = "cloud-init-seed" // would give every server the same instance-id, and what else it holds
	SudoRule  = "sudo-rule"       // of the build's account
	Account   = "build-account"
	Password  = "build-password"
)

// hostKeyPrefix is how the files begin that each server makes for itself, by
// ssh-keygen -A.
const hostKeyPrefix = target.SSHDir + "/ssh_host_"

// A Leak is something that an image must not hold.
type Leak struct {
	Kind     string `json:"kind"`
	Path     string `json:"path"`
	Deferred bool   `json:"deferred"` // goes at the shutdown, or with the first boot
}

func (l Leak) String() string {
	s := fmt.Sprintf("%s: %s", l.Path, l.Kind)
	switch { // what clean does not remove
	case l.Kind == HostKey && !strings.HasPrefix(l.Path, hostKeyPrefix):
		s += ", which would be every server's; take HostKey out of sshd's configuration, so that each server makes its own"
	case l.Kind == CloudSeed:
		s += ", which would be every server's; remove it in the build, and give each server its own"
	}
	return s
}

// Leaks looks at what is there, whatever was done before, and changes nothing.
func Leaks(t *target.Target) ([]Leak, error) {
	p, err := imagePolicy(t, nil)
	if err != nil {
		p = new(policy.Policy).WithDefaults() // the stricter look
	}
	f := &finder{t: t}
	f.entries(Secret, target.PAMStateDir)
	f.entries(Secret, target.StateDir, target.Report, markFile)
	for _, layer := range []string{"totp-vendor.yaml", "totp-instance.yaml"} {
		instances, err := glob(t, target.CloudInstances+"/*")
		f.fail(err)
		for _, i := range instances {
			f.exists(Secret, path.Join(i, layer))
		}
	}
	f.glob(HostKey, hostKeyPrefix+"*")
	own, err := hostKeyFiles(t)
	f.fail(err)
	for _, name := range own {
		if !strings.HasPrefix(path.Clean(name), hostKeyPrefix) {
			f.exists(HostKey, name)
		}
	}
	files, err := loginKeyFiles(t, p)
	f.fail(err)
	for _, name := range files {
		f.exists(LoginKey, name)
	}
	f.machineID()
	for _, name := range []string{"instance", "data", "sem"} {
		f.exists(CloudInit, path.Join(target.CloudDir, name))
	}
	f.entries(CloudInit, target.CloudInstances)
	f.entries(CloudSeed, target.CloudDir+"/seed")
	foreign, err := foreignSecrets(t)
	f.fail(err)
	for _, name := range foreign {
		f.exists(Secret, name)
	}
	f.account(p.Clean.BuildUser, p)
	return f.leaks, errors.Join(f.errs...)
}

type finder struct {
	t     *target.Target
	leaks []Leak
	errs  []error
}

func (f *finder) fail(err error) { f.errs = append(f.errs, err) }

func (f *finder) add(kind, name string) { f.leaks = append(f.leaks, Leak{Kind: kind, Path: name}) }

func (f *finder) exists(kind, name string) {
	if f.t.Exists(name) {
		f.add(kind, name)
	}
}

func (f *finder) glob(kind, pattern string) {
	names, err := glob(f.t, pattern)
	f.fail(err)
	for _, name := range names {
		f.add(kind, name)
	}
}

// entries finds what is in a directory. A directory that is empty below is none.
func (f *finder) entries(kind, dir string, but ...string) {
	entries, err := f.t.ReadDir(dir)
	f.fail(missingIsFine(err))
	for _, e := range entries {
		switch name := path.Join(dir, e.Name()); {
		case slices.Contains(but, name):
		case e.IsDir():
			f.entries(kind, name)
		default:
			f.add(kind, name)
		}
	}
}

func (f *finder) machineID() {
	for _, name := range []string{target.MachineID, "/var/lib/dbus/machine-id"} {
		fi, err := f.t.Lstat(name)
		if err != nil || !fi.Mode().IsRegular() {
			continue
		}
		b, err := f.t.ReadFile(name)
		f.fail(err)
		if s := strings.TrimSpace(string(b)); s != "" && s != "uninitialized" {
			f.add(MachineID, name)
		}
	}
}

// account looks for what is left of the account that the policy names as the
// build's.
func (f *finder) account(user string, p *policy.Policy) {
	if user == "" {
		return
	}
	users, err := f.t.Users()
	f.fail(err)
	byCloud, err := defaultUsers(f.t)
	f.fail(err)
	if i := slices.IndexFunc(users, func(u target.User) bool { return u.Name == user }); i >= 0 {
		why, err := named(f.t, p, users[i])
		f.fail(err)
		if why == "" && !slices.Contains(byCloud, user) {
			f.add(Account, target.Passwd+": "+user)
		}
	}
	if b, err := f.t.ReadFile("/etc/shadow"); err == nil {
		for line := range strings.Lines(string(b)) {
			fields := strings.Split(line, ":")
			if len(fields) > 1 && fields[0] == user && fields[1] != "" && !strings.ContainsAny(fields[1][:1], "!*") {
				f.add(Password, "/etc/shadow: "+user)
			}
		}
	} else {
		f.fail(missingIsFine(err))
	}
	files, err := sudoers(f.t)
	f.fail(err)
	for _, name := range files {
		b, err := f.t.ReadFile(name)
		if err != nil {
			f.fail(missingIsFine(err))
			continue
		}
		if kept, _ := withoutSudoRules(string(b), user); kept != string(b) {
			f.add(SudoRule, name)
		}
	}
}
