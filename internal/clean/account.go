// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

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
		if err := c.dropSudoRules(m.User); err != nil {
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
