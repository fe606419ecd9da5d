// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"fmt"
	"path"
	"strconv"
	"strings"
)

// A User is an account of the guest's /etc/passwd.
type User struct {
	Name        string
	UID, GID    int
	Home, Shell string
}

// ValidUserName accepts the names that adduser of Debian makes by default and
// those of cloud images: lower case letters, digits, "_", "." and "-", a letter
// or "_" first, 32 at most. Such a name is safe as a file name of its own,
// which the PAM module makes of it without looking. The error is
// [ErrUserName].
func ValidUserName(name string) error {
	const letters, others = "abcdefghijklmnopqrstuvwxyz_", "0123456789.-"
	if name == "" || len(name) > 32 || !strings.Contains(letters, name[:1]) || strings.Trim(name, letters+others) != "" {
		return fmt.Errorf("%q: %w; use a-z, 0-9, _, . and -, begin with a letter or _, and take 32 at most", name, ErrUserName)
	}
	return nil
}

// CanLogin tells whether the account's shell lets anybody in. An empty shell is
// /bin/sh, passwd(5).
func (u User) CanLogin() bool {
	switch path.Base(u.Shell) {
	case "nologin", "false", "true", "sync", "halt", "shutdown":
		return false
	}
	return true
}

// Users lists the accounts of /etc/passwd in the order of the file. Accounts
// of directory services are not local and not listed; lines that are no
// account are passed over, as the C library does.
func (t *Target) Users() ([]User, error) {
	b, err := t.ReadFile(Passwd)
	if err != nil {
		return nil, err
	}
	return parsePasswd(string(b)), nil
}

func parsePasswd(s string) []User {
	var us []User
	seen := map[string]bool{}
	for line := range strings.Lines(s) {
		f := strings.Split(strings.TrimRight(line, "\r\n"), ":")
		if len(f) != 7 || f[0] == "" || strings.ContainsAny(f[0][:1], "#+-") || seen[f[0]] {
			continue
		}
		uid, err1 := strconv.ParseUint(f[2], 10, 31)
		gid, err2 := strconv.ParseUint(f[3], 10, 31)
		if err1 != nil || err2 != nil {
			continue
		}
		seen[f[0]] = true
		us = append(us, User{Name: f[0], UID: int(uid), GID: int(gid), Home: f[5], Shell: f[6]})
	}
	return us
}
