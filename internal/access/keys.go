// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package access

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// keys judges whether sshd finds a key that opens a session. What is wrong with
// single files and keys is a problem only where no key is good.
func (c *Checker) keys(s settings, u target.User, v *Verdict) {
	elsewhere := false
	if cmd := s.value("authorizedkeyscommand"); cmd != "" && cmd != "none" {
		v.add(KeysCommand, u, cmd)
		elsewhere = true
	}
	if ca := s.value("trustedusercakeys"); ca != "" && ca != "none" {
		v.add(UserCA, u, ca)
		elsewhere = true
	}
	files := slices.DeleteFunc(strings.Fields(s.value("authorizedkeysfile")), func(f string) bool { return f == "none" })
	if len(files) == 0 {
		if !elsewhere {
			v.add(KeysOff, u, "")
		}
		return
	}
	rules := newKeyRules(s, c.Now)
	var bad Verdict
	for _, f := range files {
		file := expand(f, u)
		text, why, where := c.keyFile(s, u, file)
		if why != "" {
			if why != KeysMissing {
				bad.add(why, u, where)
			}
			continue
		}
		found := rules.judge(text)
		if found.good {
			return
		}
		if found.from {
			v.add(KeyFrom, u, file)
		}
		if found.ca {
			v.add(UserCA, u, file)
		}
		elsewhere = elsewhere || found.from || found.ca
		for _, r := range found.bad {
			bad.add(r, u, file)
		}
	}
	if elsewhere {
		return
	}
	if len(bad.Problems)+len(bad.Unknown) == 0 {
		bad.add(KeysMissing, u, expand(files[0], u))
	}
	// A file that could not be read here may be fine for sshd.
	if len(bad.Unknown) == 0 {
		v.Problems = append(v.Problems, bad.Problems...)
	}
	v.Unknown = append(v.Unknown, bad.Unknown...)
}

// keyFile reads a file of keys as sshd does. why is the reason where sshd does
// not read it, and where is the path with the fault.
func (c *Checker) keyFile(s settings, u target.User, file string) (text []byte, why Reason, where string) {
	fail := func(err error) ([]byte, Reason, string) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, KeysMissing, file
		}
		return nil, NotJudged, err.Error()
	}
	if !path.IsAbs(file) {
		return nil, KeysMissing, file // no home directory
	}
	real, err := c.t.Resolve(file)
	if err != nil {
		return fail(err)
	}
	f, err := c.t.OpenRegular(real, os.O_RDONLY)
	if errors.Is(err, target.ErrNotRegular) {
		return nil, KeysUnreadable, real
	}
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fail(err)
	}
	if !c.may(u, fi, 0o4) {
		return nil, KeysUnreadable, real
	}
	home, err := c.t.Resolve(u.Home)
	if err != nil {
		home = ""
	}
	strict := s.word("strictmodes") != "no"
	if strict && !c.secure(u, fi) {
		return nil, KeysMode, real
	}
	// sshd looks at the directories up to the home, or to the root.
	checked := false
	for dir := path.Dir(real); ; dir = path.Dir(dir) {
		di, err := c.t.Stat(dir)
		if err != nil {
			return fail(err)
		}
		if !c.may(u, di, 0o1) {
			return nil, KeysUnreadable, dir
		}
		if strict && !checked && !c.secure(u, di) {
			return nil, KeysMode, dir
		}
		checked = checked || dir == home
		if dir == "/" {
			break
		}
	}
	text, err = target.ReadAll(real, f)
	if err != nil {
		return fail(err)
	}
	return text, "", ""
}

// may reports whether the user has a right, 4 to read or 1 to search, to what fi
// describes: sshd opens the file as the user.
func (c *Checker) may(u target.User, fi fs.FileInfo, right fs.FileMode) bool {
	uid, gid, ok := target.Owner(fi)
	switch {
	case !ok || u.UID == 0:
		return true
	case uid == u.UID:
		return fi.Mode()&(right<<6) != 0
	case gid == u.GID || slices.ContainsFunc(c.groupsOf(u), func(g group) bool { return g.gid == gid }):
		return fi.Mode()&(right<<3) != 0
	}
	return fi.Mode()&right != 0
}

// secure is sshd's StrictModes for one file or directory. Debian's sshd accepts a
// group that has no other member than the user.
func (c *Checker) secure(u target.User, fi fs.FileInfo) bool {
	uid, gid, ok := target.Owner(fi)
	if !ok {
		return true
	}
	if uid != 0 && uid != u.UID || fi.Mode()&0o002 != 0 {
		return false
	}
	if fi.Mode()&0o020 == 0 {
		return true
	}
	return c.t.Exists(target.DebianVersion) && c.alone(u, gid)
}

// alone reports whether the user is the only member of a group.
func (c *Checker) alone(u target.User, gid int) bool {
	member := false
	for _, o := range c.users {
		if o.GID == gid {
			member = true
			if o.UID != u.UID {
				return false
			}
		}
	}
	for _, g := range c.groups {
		if g.gid != gid {
			continue
		}
		for _, m := range g.members {
			member = true
			if m != u.Name {
				return false
			}
		}
	}
	return member
}
