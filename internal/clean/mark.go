// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// markFile says that there is something left to do. totp-clean.service starts
// where it exists.
const markFile = target.CleanMark

// A mark is what is to become of the account that the build logged in with.
type mark struct {
	User   string `json:"user,omitempty"`   // loses its password
	Sudo   bool   `json:"sudo,omitempty"`   // loses its sudo rules
	Remove bool   `json:"remove,omitempty"` // goes with its home directory

}

var errMark = errors.New("damaged; run totp-agent clean again, or remove it")

// newMark decides about the build's account: the one that the policy names goes,
// unless something else names it too; one that is only known as the login of
// this build stays without keys and password.
func newMark(t *target.Target, p *policy.Policy, login string) (mark, error) {
	m := mark{User: p.Clean.BuildUser}
	if m.User == "" {
		if login == "root" || policy.ValidUserName(login) != nil {
			return mark{}, nil
		}
		return mark{User: login}, nil
	}
	m.Sudo = true
	users, err := t.Users()
	if err != nil {
		return mark{}, err
	}
	i := slices.IndexFunc(users, func(u target.User) bool { return u.Name == m.User })
	if i < 0 {
		return mark{}, nil // gone already
	}
	if users[i].UID == 0 {
		return mark{}, fmt.Errorf("clean.build_user: %q: is root by another name; name the account that the build logs in with", m.User)
	}
	byCloud, err := defaultUsers(t)
	if err != nil {
		return mark{}, err
	}
	where, err := named(t, p, users[i])
	m.Remove = where == "" && !slices.Contains(byCloud, m.User)
	if err == nil && m.Remove && !ownHome(t, users[i], users) {
		err = fmt.Errorf("clean.build_user: %q: its home %q is not a directory of its own, and would go with it; give it another one in the build",
			m.User, users[i].Home)
	}
	return m, err
}

// ownHome tells whether a home directory is the account's alone, or not there.
// userdel would see to that, if it were not told by --force to remove it in any
// case: the whole of /, or /srv.
func ownHome(t *target.Target, u target.User, users []target.User) bool {
	fi, err := t.Lstat(u.Home)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	uid, _, _ := target.Owner(fi)
	within := strings.TrimSuffix(path.Clean(u.Home), "/") + "/"
	return fi.IsDir() && uid == u.UID && !slices.ContainsFunc(users, func(o target.User) bool {
		return o.Name != u.Name && strings.HasPrefix(path.Clean(o.Home)+"/", within)
	})
}

// words are what the mark announces.
func (m mark) words() []string {
	var ws []string
	switch {
	case m.Remove:
		ws = append(ws, fmt.Sprintf("the account %q with its home directory, password and sudo rules", m.User))
	case m.Sudo:
		ws = append(ws, fmt.Sprintf("password and sudo rules of %q, an account that stays", m.User))
	case m.User != "":
		ws = append(ws, fmt.Sprintf("password of %q, an account that stays", m.User))
	}
	return ws
}

// covers tells whether what is left is deferred.
func (m mark) covers(l Leak) bool {
	switch l.Kind {
	case HostKey:
		return strings.HasPrefix(l.Path, hostKeyPrefix)
	case LoginKey, MachineID:
		return true
	case SudoRule:
		return m.Sudo
	case Account:
		return m.Remove
	case Password:
		return m.User != ""
	}
	return false
}

func readMark(t *target.Target) (mark, error) {
	b, err := t.ReadFile(markFile)
	if err != nil {
		return mark{}, err
	}
	var m mark
	if json.Unmarshal(b, &m) != nil || m.User != "" && (policy.ValidUserName(m.User) != nil || m.User == "root") {
		return mark{}, fmt.Errorf("%s: %w", markFile, errMark)
	}
	return m, nil
}

// runtimeUnit does at the shutdown of this machine what was deferred. It is
// under /run, which no image keeps. What it comes before is stopped before it is,
// systemd.unit(5): services, sessions, and the one that saves a random seed.
const (
	runtimeUnit = "/run/systemd/system/totp-clean-shutdown.service"
	runtimeText = `[Unit]
Description=Remove from this image what its build needed
DefaultDependencies=no
RequiresMountsFor=/etc /home /root /var/lib /var/log /var/tmp
Before=sysinit.target systemd-random-seed.service systemd-update-utmp.service shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
ExecStop=` + target.AgentPath + ` clean --finish shutdown
TimeoutStopSec=60
`
)

// postpone leaves the mark, and arms the shutdown of a machine that systemd
// runs. The first boot of the image looks for the mark in any case.
func (c *cleaner) postpone(m mark) error {
	text, err := marshal(m)
	if err != nil {
		return err
	}
	if err := c.t.WriteFile(markFile, text, 0o600); err != nil {
		return err
	}
	if !c.t.Booted() {
		return nil
	}
	if err := c.t.WriteFile(runtimeUnit, []byte(runtimeText), 0o644); err != nil {
		return err
	}
	if _, err := c.t.Run(c.ctx, target.Systemctl, "daemon-reload"); err != nil {
		return err
	}
	_, err = c.t.Run(c.ctx, target.Systemctl, "start", path.Base(runtimeUnit))
	return err
}
