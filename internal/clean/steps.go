// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A step is one kind of trace, and how it goes. Doing it twice does no harm.
type step struct {
	what string // for the report: "the package lists"
	do   func(*cleaner) error
}

// now is what nothing needs any more. The secrets go first.
var now = []step{
	{"TOTP state of this machine", (*cleaner).ownState},
	{"cloud-init's state", (*cleaner).cloudInit},
	{"package lists and caches", remove(
		"/var/lib/apt/lists/*", "/var/cache/apt/*.bin", "/var/cache/apt/archives/*.deb", "/var/cache/apt/archives/partial/*",
		"/var/cache/dnf/*", "/var/cache/libdnf5/*", "/var/cache/yum/*",
		// Whom the mirrors count this machine as. The history beside it tells what was
		// installed for its own sake, and stays.
		"/var/lib/dnf/repos/*", "/var/lib/yum/uuid",
		// The subscription of RHEL is one machine's, and its keys are secret.
		"/etc/pki/consumer/*", "/etc/pki/entitlement/*")},
	{"DHCP leases", remove(leases...)},
	{"shell histories", (*cleaner).histories},
	{"logs", (*cleaner).logs},
}

// deferred is what the build still uses, or writes again.
var deferred = []step{
	{"SSH host keys", remove(hostKeyPrefix + "*")},
	{"login keys", (*cleaner).loginKeys},
	{"machine-id", (*cleaner).machineID},
	{"what cloud-init had configured for this machine", (*cleaner).rendered},
	{"random seed", remove("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed")},
	{"DHCP leases that the shutdown wrote", remove(leases...)},
	{"journal and logs of the build", (*cleaner).lateLogs},
	{"shell histories that the shutdown wrote", (*cleaner).histories},
	{"temporary files", (*cleaner).temporary},
	{"backups of the user database", remove("/etc/passwd-", "/etc/shadow-", "/etc/group-", "/etc/gshadow-", "/etc/subuid-", "/etc/subgid-")},
}

var leases = []string{
	"/var/lib/dhcp/*", "/var/lib/dhclient/*", "/var/lib/dhcpcd/*.lease*", "/var/lib/dhcpcd5/*.lease*",
	"/var/lib/NetworkManager/*.lease", "/var/lib/NetworkManager/secret_key", "/var/lib/NetworkManager/timestamps",
}

// remove removes everything that one of the patterns matches, path.Match. Only
// the last element of a pattern has wildcards.
func remove(patterns ...string) func(*cleaner) error {
	return func(c *cleaner) error {
		var errs []error
		for _, p := range patterns {
			names, err := glob(c.t, p)
			errs = append(errs, err)
			for _, name := range names {
				errs = append(errs, missingIsFine(c.t.RemoveAll(name)))
			}
		}
		return errors.Join(errs...)
	}
}

func glob(t *target.Target, pattern string) ([]string, error) {
	dir, last := path.Split(pattern)
	entries, err := t.ReadDir(path.Clean(dir))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if ok, err := path.Match(last, e.Name()); err != nil {
			return nil, err
		} else if ok {
			names = append(names, path.Join(dir, e.Name()))
		}
	}
	return names, nil
}

// ownState removes PAM state files with their secrets, envelopes, receipts,
// status and notice. What bake put there stays, and so does a mark.
func (c *cleaner) ownState() error {
	return errors.Join(
		empty(c.t, target.PAMStateDir),
		empty(c.t, target.StateDir, target.Report, markFile),
		empty(c.t, target.RunDir),
		c.layers(),
		c.foreign(),
	)
}

// foreign removes the secrets that were there before us.
func (c *cleaner) foreign() error {
	files, err := foreignSecrets(c.t)
	errs := []error{err}
	for _, f := range files {
		errs = append(errs, missingIsFine(c.t.Remove(f)))
	}
	return errors.Join(errs...)
}

// layers removes the policy layers of all instances that this disk has been,
// with their tokens.
func (c *cleaner) layers() error {
	entries, err := c.t.ReadDir(target.CloudInstances)
	errs := []error{missingIsFine(err)}
	for _, e := range entries {
		for _, layer := range []string{target.VendorPolicy, target.InstancePolicy} {
			errs = append(errs, missingIsFine(c.t.Remove(path.Join(target.CloudInstances, e.Name(), path.Base(layer)))))
		}
	}
	return errors.Join(errs...)
}

// empty removes what is in a directory, but for some files.
func empty(t *target.Target, dir string, keep ...string) error {
	entries, err := t.ReadDir(dir)
	errs := []error{missingIsFine(err)}
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		kept := false
		for _, k := range keep {
			kept = kept || k == p
		}
		if !kept {
			errs = append(errs, t.RemoveAll(p))
		}
	}
	return errors.Join(errs...)
}

// cloudInit lets cloud-init forget this machine by its own command, which also
// runs the hooks in /etc/cloud/clean.d where the version has them. No version
// is asked to do more than --logs: --machine-id is unknown to that of Debian 11,
// which then cleans nothing. What the command leaves, or a machine without it
// has, is removed as it lies there; the seed is the image maker's, and the leak
// check's.
func (c *cleaner) cloudInit() error {
	if c.t.IsRegular(target.CloudInit) {
		if _, err := c.t.Run(c.ctx, target.CloudInit, "clean", "--logs"); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range []string{"instance", "instances", "data", "sem", "handlers", "scripts"} {
		errs = append(errs, missingIsFine(c.t.RemoveAll(path.Join(target.CloudDir, name))))
	}
	return errors.Join(errs...)
}

var historyFiles = []string{".bash_history", ".zsh_history", ".ash_history", ".sh_history", ".history", ".python_history", ".lesshst", ".viminfo", ".wget-hsts", ".sudo_as_admin_successful"}

func (c *cleaner) histories() error {
	users, err := c.t.Users()
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range users {
		// /dev, the home of Debian's sys, is not on the disk, and read-only to
		// totp-clean.service.
		if !strings.HasPrefix(u.Home, "/") || u.Home == "/" || path.Clean(u.Home) == "/dev" {
			continue
		}
		for _, f := range historyFiles {
			errs = append(errs, missingIsFine(c.t.Remove(path.Join(u.Home, f))))
		}
	}
	return errors.Join(errs...)
}

// logs removes old logs and empties those that are written to, whose owner and
// mode stay.
func (c *cleaner) logs() error { return c.emptyLogs("/var/log", false) }

// lateLogs is for a machine that writes none any more: the journal goes too. Of a
// file that is removed journald would notice it, and begin another under the old
// machine-id: it runs to the very end of the shutdown. So it is told to write to
// memory only; the journalctl of each Debian that is proven can say that.
func (c *cleaner) lateLogs() error {
	if c.t.Booted() && !c.boot {
		_, _ = c.t.Run(c.ctx, "journalctl", "--relinquish-var")
	}
	return c.emptyLogs("/var/log", true)
}

func (c *cleaner) emptyLogs(dir string, journal bool) error {
	entries, err := c.t.ReadDir(dir)
	if err != nil {
		return missingIsFine(err)
	}
	var errs []error
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch {
		case e.IsDir() && e.Name() == "journal":
			if journal && !c.boot { // in the first boot the journal is this machine's own
				errs = append(errs, empty(c.t, name))
			}
		case e.IsDir():
			errs = append(errs, c.emptyLogs(name, journal))
		case !e.Type().IsRegular():
		case rotated(e.Name()):
			errs = append(errs, missingIsFine(c.t.Remove(name)))
		default:
			errs = append(errs, missingIsFine(truncate(c.t, name)))
		}
	}
	return errors.Join(errs...)
}

// truncate empties a file, but none that a link has come to lead to since.
func truncate(t *target.Target, name string) error {
	f, err := t.OpenRegular(name, os.O_WRONLY)
	if errors.Is(err, target.ErrNotRegular) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(0), f.Close())
}

// rotated tells whether a log was put aside: auth.log.1, dpkg.log.2.gz, x.old.
func rotated(name string) bool {
	switch path.Ext(name) {
	case ".gz", ".xz", ".zst", ".bz2", ".old":
		return true
	}
	ext := strings.TrimPrefix(path.Ext(name), ".")
	return ext != "" && strings.Trim(ext, "0123456789") == ""
}

// loginKeys removes the keys that the build logged in with: those of every
// account, but for the ones that the image's policy names.
func (c *cleaner) loginKeys() error {
	files, err := loginKeyFiles(c.t, c.policy)
	errs := []error{err}
	for _, f := range files {
		errs = append(errs, missingIsFine(c.t.Remove(f)))
	}
	return errors.Join(errs...)
}

// machineID empties the file: systemd then gives the next boot an ID, without
// taking that boot for a first one, which would apply presets to all units. In
// that boot itself the new one is made at once.
func (c *cleaner) machineID() error {
	if fi, err := c.t.Lstat("/var/lib/dbus/machine-id"); err == nil && fi.Mode().IsRegular() {
		if err := c.t.Remove("/var/lib/dbus/machine-id"); err != nil {
			return err
		}
	}
	if !c.t.Exists(target.MachineID) {
		return nil
	}
	if err := c.t.WriteFile(target.MachineID, nil, 0o444); err != nil {
		return err
	}
	if !c.boot {
		return nil
	}
	if _, err := c.t.Run(c.ctx, "systemd-machine-id-setup"); err != nil {
		return err
	}
	if c.t.Booted() {
		// The journal of this boot is found by the ID that journald knows. Whether it
		// takes the new one now or at the next boot is no reason to fail.
		_, _ = c.t.Run(c.ctx, target.Systemctl, "restart", "--no-block", "systemd-journald.service")
	}
	return nil
}

// temporary empties the directories for temporary files, but for those of
// units that run.
func (c *cleaner) temporary() error {
	var errs []error
	for _, dir := range []string{"/tmp", "/var/tmp"} {
		entries, err := c.t.ReadDir(dir)
		errs = append(errs, missingIsFine(err))
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), "systemd-private-") {
				errs = append(errs, missingIsFine(c.t.RemoveAll(path.Join(dir, e.Name()))))
			}
		}
	}
	return errors.Join(errs...)
}
