// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An account is one that the self-test logs in to: a throw-away one, or one that
// the policy names and the image has, at another home.
type account struct {
	name     string
	uid, gid int
	home     string
	password string   // hash for shadow(5)
	groups   []string // besides its own
}

// A userDB is the text of passwd(5), group(5) and their shadows. Lines that are
// not ours stay as they are, byte by byte.
type userDB struct{ passwd, shadow, group, gshadow string }

// errAccounts means that there is no room for throw-away accounts.
var errAccounts = errors.New("no free name or number for throw-away accounts")

// prefix returns the beginning of names that no account and no group has.
func (db userDB) prefix() (string, error) {
	for i := range 100 {
		p := "totp-test"
		if i > 0 {
			p += strconv.Itoa(i)
		}
		if !strings.Contains(db.passwd+"\n"+db.group, p+"-") {
			return p + "-", nil
		}
	}
	return "", errAccounts
}

// Numbers of throw-away accounts: Debian's policy gives them to nobody (section
// 9.2.2), and above 1000 so that rules for people are about them.
const (
	firstID = 59999
	lastID  = 30000
)

// freeIDs returns n numbers that are no user's and no group's.
func (db userDB) freeIDs(n int) ([]int, error) {
	used := map[string]bool{}
	for _, text := range []string{db.passwd, db.group} {
		for line := range strings.Lines(text) {
			for i, f := range strings.Split(strings.TrimSpace(line), ":") {
				if i == 2 || i == 3 {
					used[f] = true
				}
			}
		}
	}
	var ids []int
	for id := firstID; id >= lastID && len(ids) < n; id-- {
		if !used[strconv.Itoa(id)] {
			ids = append(ids, id)
		}
	}
	if len(ids) < n {
		return nil, errAccounts
	}
	return ids, nil
}

// fields returns the fields of an entry, or nil.
func fields(text, name string) []string {
	for line := range strings.Lines(text) {
		if f := strings.Split(strings.TrimRight(line, "\r\n"), ":"); f[0] == name {
			return f
		}
	}
	return nil
}

// set replaces an entry, or adds it at the end.
func set(text string, entry ...string) string {
	var b strings.Builder
	done := false
	for line := range strings.Lines(text) {
		if name, _, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); name == entry[0] && !done {
			line, done = strings.Join(entry, ":")+"\n", true
		}
		b.WriteString(line)
	}
	if !done {
		if s := b.String(); s != "" && !strings.HasSuffix(s, "\n") {
			b.WriteByte('\n')
		}
		b.WriteString(strings.Join(entry, ":") + "\n")
	}
	return b.String()
}

// add makes an account that is not there, with a group of its own, or gives one
// that is there another home and a shell. It returns the account with its
// numbers. The numbers id and gid are free: for the account, and for a group that
// it is to be in and that is not there.
func (db *userDB) add(a account, id, gid int, shell string) (account, error) {
	if f := fields(db.passwd, a.name); f != nil {
		if len(f) != 7 {
			return a, fmt.Errorf("passwd: account %q: has %d fields, want 7; correct its line", a.name, len(f))
		}
		var err1, err2 error
		a.uid, err1 = strconv.Atoi(f[2])
		a.gid, err2 = strconv.Atoi(f[3])
		if err := errors.Join(err1, err2); err != nil {
			return a, fmt.Errorf("passwd: account %q: %w; correct its line", a.name, err)
		}
		f[5], f[6] = a.home, shell
		db.passwd = set(db.passwd, f...)
	} else {
		a.uid, a.gid = id, id
		n := strconv.Itoa(id)
		db.passwd = set(db.passwd, a.name, "x", n, n, "self-test", a.home, shell)
		// No dates: an account that does not age and does not expire.
		db.shadow = set(db.shadow, a.name, a.password, "", "", "", "", "", "", "")
		if fields(db.group, a.name) == nil {
			db.addGroup(a.name, id)
		}
	}
	for _, g := range a.groups {
		if fields(db.group, g) == nil {
			// Match Group goes by the name.
			db.addGroup(g, gid)
		}
		db.join(a.name, g)
	}
	return a, nil
}

func (db *userDB) addGroup(name string, gid int) {
	db.group = set(db.group, name, "x", strconv.Itoa(gid), "")
	db.gshadow = set(db.gshadow, name, "*", "", "")
}

func (db *userDB) join(user, group string) {
	for _, text := range []*string{&db.group, &db.gshadow} {
		f := fields(*text, group)
		if len(f) != 4 {
			continue
		}
		members := strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })
		if !slices.Contains(members, user) {
			f[3] = strings.Join(append(members, user), ",")
			*text = set(*text, f...)
		}
	}
}
