// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package access

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// An aging is the part of a shadow(5) entry that pam_unix looks at; -1 is an
// empty field. All are days, lastChange and expire since 1970.
type aging struct{ lastChange, maximum, inactive, expire int64 }

// judge returns the reason that pam_unix has to refuse the account, or "". The
// password itself may be locked: key and code do not need it.
func (a aging) judge(now time.Time) Reason {
	today := now.Unix() / (24 * 60 * 60)
	switch {
	case a.expire != -1 && today >= a.expire:
		return AccountExpired
	case a.lastChange == 0:
		return PasswordChange
	case today < a.lastChange, a.maximum == -1:
		return ""
	case a.lastChange == -1 && today-a.lastChange > a.maximum:
		return PasswordUndated
	case today-a.lastChange > a.maximum:
		return PasswordExpired
	}
	return ""
}

// readShadow reads the expiry dates of the local accounts.
func readShadow(t *target.Target) (map[string]aging, error) {
	b, err := t.ReadFile(target.Shadow)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	all := map[string]aging{}
	for line := range strings.Lines(string(b)) {
		if name, a, ok := parseShadow(line); ok {
			if _, twice := all[name]; !twice {
				all[name] = a
			}
		}
	}
	return all, nil
}

// directoryAging asks the name service for the dates of an account that is not
// local.
func directoryAging(ctx context.Context, t *target.Target, name string) (aging, bool) {
	out, err := t.Getent(ctx, "shadow", name)
	if err != nil {
		return aging{}, false
	}
	_, a, ok := parseShadow(string(out))
	return a, ok
}

// parseShadow reads a line of shadow(5). What is in the password field is not
// looked at.
func parseShadow(line string) (name string, a aging, ok bool) {
	f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
	if len(f) < 8 || f[0] == "" {
		return "", a, false
	}
	for i, to := range map[int]*int64{2: &a.lastChange, 4: &a.maximum, 6: &a.inactive, 7: &a.expire} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			n = -1
		}
		*to = n
	}
	return f[0], a, true
}

// A group is a line of group(5).
type group struct {
	name    string
	gid     int
	members []string
}

func readGroups(t *target.Target) ([]group, error) {
	b, err := t.ReadFile(target.Group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var gs []group
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		if gid, err := strconv.ParseUint(f[2], 10, 31); err == nil {
			gs = append(gs, group{f[0], int(gid), strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })})
		}
	}
	return gs, nil
}

// groupsOf lists the groups of a local account.
func (c *Checker) groupsOf(u target.User) []group {
	var gs []group
	for _, g := range c.groups {
		if g.gid == u.GID || slices.Contains(g.members, u.Name) {
			gs = append(gs, g)
		}
	}
	return gs
}

// groupNames lists the names of the groups that sshd sees, those of directory
// services included.
func (c *Checker) groupNames(ctx context.Context, u target.User) []string {
	var names []string
	for _, g := range c.groupsOf(u) {
		names = append(names, g.name)
	}
	for _, name := range c.t.DirectoryGroupsOf(ctx, u) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
