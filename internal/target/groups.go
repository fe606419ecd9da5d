// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
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
	b, err := t.ReadFile(Group)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var groups []string
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) != 4 || f[0] == "" {
			continue
		}
		gid, err := strconv.ParseUint(f[2], 10, 31)
		if err == nil && int(gid) == u.GID || slices.Contains(strings.Split(f[3], ","), u.Name) {
			groups = append(groups, f[0])
		}
	}
	return groups, nil
}
