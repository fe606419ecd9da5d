// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A User is an account of the guest's /etc/passwd.
type User struct {
	Name        string
	UID, GID    int
	Home, Shell string

	Directory bool // known to the name service switch only, nsswitch.conf(5)
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

// ErrPasswd is about a file of accounts that cannot be the whole one, as a power cut or a
// full disk leaves it.
var ErrPasswd = errors.New("the file is empty or cut; restore it from " + PasswdBackup)

// Users lists the accounts of /etc/passwd in the order of the file. Accounts
// of directory services are not local and not listed; lines that are no
// account are passed over, as the C library does. A file without an account of uid 0, or
// with a last line that is cut, is not believed ([ErrPasswd]): a caller would take accounts
// that it has lost for removed ones.
func (t *Target) Users() ([]User, error) {
	b, err := t.ReadFile(Passwd)
	if err != nil {
		return nil, err
	}
	us := parsePasswd(string(b))
	if !slices.ContainsFunc(us, func(u User) bool { return u.UID == 0 }) {
		return nil, fmt.Errorf("%s: no account has uid 0: %w", Passwd, ErrPasswd)
	}
	last := b[bytes.LastIndexByte(b, '\n')+1:]
	if len(last) > 0 && !bytes.ContainsAny(last[:1], "#+-") && bytes.Count(last, []byte(":")) != 6 {
		return nil, fmt.Errorf("%s: the last line is incomplete: %w", Passwd, ErrPasswd)
	}
	return us, nil
}

// InShadow reports whether /etc/shadow has an account of that name. A name that it has and
// /etc/passwd lacks is one that /etc/passwd has lost: userdel(8) removes both lines.
func (t *Target) InShadow(name string) (bool, error) {
	b, err := t.ReadFile(Shadow)
	if err != nil {
		return false, ignoreMissing(err)
	}
	for line := range bytes.Lines(b) {
		if n, _, ok := bytes.Cut(line, []byte(":")); ok && string(n) == name {
			return true, nil
		}
	}
	return false, nil
}

// ErrNotInDirectory is returned where no source of the name service switch knows a
// name. A directory that cannot be reached often answers the same.
var ErrNotInDirectory = errors.New("not known to getent")

// LookupUser asks the name service switch for an account that /etc/passwd does not
// have: one of LDAP or sssd, say. PAM and sshd ask the same sources.
func (t *Target) LookupUser(ctx context.Context, name string) (User, error) {
	out, err := t.Getent(ctx, "passwd", name)
	if err != nil {
		return User{}, err
	}
	us := parsePasswd(string(out))
	if len(us) != 1 || us[0].Name != name {
		return User{}, fmt.Errorf("getent passwd %s: %w", name, ErrNotInDirectory)
	}
	us[0].Directory = true
	return us[0], nil
}

// getentPatience is how long a directory has for an answer: at boot sshd waits for
// the agent.
const getentPatience = 3 * time.Second

// Getent asks the name service switch for one entry of a database, getent(1). The
// error is [ErrNotInDirectory] where there is none.
func (t *Target) Getent(ctx context.Context, database, name string) ([]byte, error) {
	if err := ValidUserName(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, getentPatience)
	defer cancel()
	out, err := t.Run(ctx, GetentCmd, database, name)
	if ce, ok := errors.AsType[*CommandError](err); ok && ce.Code == 2 {
		return nil, fmt.Errorf("getent %s %s: %w", database, name, ErrNotInDirectory)
	}
	return out, err
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
