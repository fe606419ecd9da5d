// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// GroupsOf lists the groups of an account by name: its own, and those of
// /etc/group that name it, group(5). Groups of directory services are not local
// and not listed.
func (t *Target) GroupsOf(u User) ([]string, error) {
	g, err := t.Groups()
	return g.Of(u), err
}

// Groups is /etc/group as it was read, for a caller that asks for the groups of
// many accounts.
type Groups struct{ text string }

// Groups reads /etc/group. Where there is none, nobody is in a group.
func (t *Target) Groups() (Groups, error) {
	b, err := t.ReadFile(Group)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return Groups{string(b)}, err
}

// Of lists the groups of an account, as GroupsOf does.
func (g Groups) Of(u User) []string {
	var groups []string
	for line := range strings.Lines(g.text) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 31)
		if err == nil && int(gid) == u.GID || slices.Contains(strings.Split(f[3], ","), u.Name) {
			groups = append(groups, f[0])
		}
	}
	return groups
}

// DirectoryGroupsOf lists the groups of an account that sshd sees where groups or the
// account itself may come from a directory service: local ones are among them. It is empty
// where they cannot, and where the service does not answer.
func (t *Target) DirectoryGroupsOf(ctx context.Context, u User) []string {
	if !u.Directory && !t.directoryGroups() {
		return nil
	}
	out, err := t.Run(ctx, ID, "-G", "-n", "-z", "--", u.Name)
	if err != nil {
		return nil
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
}

// directoryGroups reports whether groups may come from anywhere but /etc/group,
// nsswitch.conf(5).
func (t *Target) directoryGroups() bool {
	b, err := t.ReadFile(NSSwitch)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		name, sources, _ := strings.Cut(line, ":")
		if strings.TrimSpace(name) != "group" {
			continue
		}
		for s := range strings.FieldsSeq(sources) {
			if !slices.Contains([]string{"files", "compat", "systemd", "[SUCCESS=merge]"}, s) {
				return true
			}
		}
	}
	return false
}
