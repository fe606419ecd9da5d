// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

const sudoersDir = "/etc/sudoers.d"

// account takes the build's account its rights, and then itself.
func (c *cleaner) account(m mark) (done []string, err error) {
	if m.User == "" {
		return nil, nil
	}
	users, err := c.t.Users()
	if err != nil {
		return nil, err
	}
	exists := slices.ContainsFunc(users, func(u target.User) bool { return u.Name == m.User && u.UID != 0 })
	if m.Sudo {
		if err := dropSudoRules(c.t, m.User); err != nil {
			return nil, err
		}
	}
	if exists {
		// An account without a password is not one with an empty password.
		if _, err := c.t.Run(c.ctx, "usermod", "--password", "*", m.User); err != nil {
			return nil, err
		}
	}
	if exists && m.Remove {
		// --force: a session of it may be ending still.
		if _, err := c.t.Run(c.ctx, "userdel", "--force", "--remove", m.User); err != nil {
			// userdel complains of a mail spool that is not there, and has done all.
			if ce, ok := errors.AsType[*target.CommandError](err); !ok || ce.Code != 12 {
				return nil, err
			}
		}
		if err := c.t.RemoveAll(path.Join("/var/spool/cron/crontabs", m.User)); err != nil {
			return nil, err
		}
	}
	done = m.words()
	for _, w := range done {
		fmt.Fprintf(c.log, "clean: %s\n", w)
	}
	return done, nil
}

// dropSudoRules removes a user's lines from the files of sudoers.d, and the files
// that say nothing after that. The comment that cloud-init puts above goes too.
func dropSudoRules(t *target.Target, user string) error {
	entries, err := t.ReadDir(sudoersDir)
	if err != nil {
		return missingIsFine(err)
	}
	for _, e := range entries {
		name := path.Join(sudoersDir, e.Name())
		if !e.Type().IsRegular() {
			continue
		}
		b, err := t.ReadFile(name)
		if err != nil {
			return err
		}
		text, says := withoutSudoRules(string(b), user)
		if text == string(b) {
			continue
		}
		if !says {
			err = t.Remove(name)
		} else {
			err = t.WriteFile(name, []byte(text), 0o440)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func withoutSudoRules(text, user string) (kept string, says bool) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0] == user || strings.TrimSpace(line) == "# User rules for "+user {
			continue
		}
		if len(f) > 0 && f[0][0] != '#' {
			says = true
		}
		b.WriteString(line)
	}
	return b.String(), says
}
