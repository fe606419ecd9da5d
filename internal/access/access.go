// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package access finds out whether an account can log in over SSH with its key
// and a code, before its owner tries.
//
// It asks sshd for the settings of that user (sshd -T -C), reads the account's
// expiry dates, and reads the keys as sshd reads them. It starts no session and
// changes nothing.
//
// # Promises
//
// A [Problem] is something that refuses every login of the account with key and
// code, or ends its session at once. What cannot be judged from here, such as the
// answer of AuthorizedKeysCommand, is listed as unknown and is never a problem.
// The tests in acctest compare the verdicts with real logins.
//
// sshd is asked once for all users whom no Match block tells apart, and at most
// [MaxAsked] times in all. A file of keys is read at most once, in linear time.
//
// # Limits
//
// PAM modules other than pam_unix and pam_nologin, access control lists of files,
// and rules for client addresses are not judged.
package access

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// Options are the circumstances of a check.
type Options struct {
	Now time.Time // zero: time.Now()

	// SSHDArgs are the arguments that sshd is started with, as far as they are about its
	// configuration. Nil means -f and the main file that the bake wrote.
	SSHDArgs []string

	// IgnoreKeys leaves the users' keys out: an image gets them at its first boot.
	IgnoreKeys bool
}

// A Checker checks the accounts of one machine. It reads passwd, group, shadow
// and sshd's settings once, so it belongs to one moment.
type Checker struct {
	Options
	t *target.Target

	users  []target.User
	groups []group
	shadow map[string]aging
	err    error // of reading these

	matches matches
	asked   map[string]answer
}

// New prepares a check.
func New(t *target.Target, o Options) *Checker {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	c := &Checker{Options: o, t: t, asked: map[string]answer{}}
	var errs [3]error
	c.users, errs[0] = t.Users()
	c.groups, errs[1] = readGroups(t)
	c.shadow, errs[2] = readShadow(t)
	c.err = errors.Join(errs[:]...)
	c.matches.read(t)
	return c
}

// A Verdict is what is known about the logins of one account.
type Verdict struct {
	Problems []Problem // each one alone refuses every login
	Unknown  []Problem // what could not be judged
}

// Can reports whether a login can succeed, as far as can be judged.
func (v Verdict) Can() bool { return len(v.Problems) == 0 }

// Has reports whether the verdict lists a reason, as a problem or as unknown.
func (v Verdict) Has(r Reason) bool {
	is := func(p Problem) bool { return p.Reason == r }
	return slices.ContainsFunc(v.Problems, is) || slices.ContainsFunc(v.Unknown, is)
}

// add files a reason where it belongs, once.
func (v *Verdict) add(r Reason, u target.User, detail string) {
	p := Problem{Reason: r, Detail: printable(detail), Fix: r.fix(u, printable(detail))}
	list := &v.Problems
	if reasons[r].unknown {
		list = &v.Unknown
	}
	if !slices.Contains(*list, p) {
		*list = append(*list, p)
	}
}

// Check judges one account.
func (c *Checker) Check(ctx context.Context, u target.User) Verdict {
	var v Verdict
	if c.err != nil {
		v.add(NotJudged, u, c.err.Error())
	}
	c.account(ctx, u, &v)
	s, ok := c.settings(ctx, u, &v)
	if !ok {
		return v
	}
	c.rules(ctx, s, u, &v)
	if !c.IgnoreKeys {
		c.keys(s, u, &v)
	}
	return v
}

// account judges what sshd and PAM check of the account itself.
func (c *Checker) account(ctx context.Context, u target.User, v *Verdict) {
	shell := cmp.Or(u.Shell, target.Shell) // passwd(5)
	switch fi, err := c.t.Stat(shell); {
	case !u.CanLogin():
		v.add(ShellNoLogin, u, shell)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		v.add(NotJudged, u, err.Error())
	case err != nil, !fi.Mode().IsRegular(), fi.Mode()&0o111 == 0:
		v.add(ShellMissing, u, shell)
	}
	// /run/nologin is of the boot and the shutdown, and passes.
	if u.UID != 0 && c.t.Exists(target.NoLogin) {
		v.add(NoLogin, u, target.NoLogin)
	}
	a, ok := c.shadow[u.Name]
	if u.Directory {
		if a, ok = directoryAging(ctx, c.t, u.Name); !ok {
			v.add(DirectoryAccount, u, "")
		}
	}
	if r := a.judge(c.Now); ok && r != "" {
		v.add(r, u, "")
	}
}

// rules judges what sshd_config says about the user.
func (c *Checker) rules(ctx context.Context, s settings, u target.User, v *Verdict) {
	c.allowed(ctx, s, u, v)
	if u.UID == 0 && s.word("permitrootlogin") != "yes" {
		// prohibit-password refuses root's code too: sshd counts
		// keyboard-interactive as a password.
		v.add(RootLogin, u, s.word("permitrootlogin"))
	}
	if s.word("refuseconnection") == "yes" {
		v.add(RefuseConnection, u, "")
	}
	if !s.takesKeyAndCode() {
		v.add(Methods, u, s.word("authenticationmethods"))
	}
	if f := s.value("forcecommand"); f != "" && f != "none" && f != "internal-sftp" {
		v.add(ForceCommand, u, f)
	}
	if d := s.value("chrootdirectory"); d != "" && d != "none" {
		v.add(Chroot, u, d)
	}
}

// allowed judges DenyUsers, AllowUsers, DenyGroups and AllowGroups in the order
// of sshd, which takes their patterns one by one and knows no negation here.
func (c *Checker) allowed(ctx context.Context, s settings, u target.User, v *Verdict) {
	for _, p := range s["denyusers"] {
		switch user, host, ok := cutHost(p); {
		case !match(user, u.Name):
		case ok && host != "*":
			v.add(HostRule, u, "DenyUsers "+p)
		default:
			v.add(DenyUsers, u, p)
			return
		}
	}
	if list := s["allowusers"]; len(list) > 0 {
		allowed, partly := false, ""
		for _, p := range list {
			user, host, ok := cutHost(p)
			if !match(user, u.Name) {
				continue
			}
			if ok && host != "*" {
				partly = p
			} else {
				allowed = true
			}
		}
		switch {
		case allowed:
		case partly != "":
			v.add(HostRule, u, "AllowUsers "+partly)
		default:
			v.add(AllowUsers, u, strings.Join(list, " "))
		}
	}
	deny, allow := s["denygroups"], s["allowgroups"]
	if len(deny) == 0 && len(allow) == 0 {
		return
	}
	names := c.groupNames(ctx, u)
	matching := func(patterns []string) string {
		for _, p := range patterns {
			if slices.ContainsFunc(names, func(g string) bool { return match(p, g) }) {
				return p
			}
		}
		return ""
	}
	if p := matching(deny); p != "" {
		v.add(DenyGroups, u, p)
	}
	if len(allow) > 0 && matching(allow) == "" {
		v.add(AllowGroups, u, strings.Join(allow, " "))
	}
}

// cutHost splits a pattern USER@HOST.
func cutHost(p string) (user, host string, ok bool) {
	if i := strings.LastIndexByte(p, '@'); i >= 0 {
		return p[:i], p[i+1:], true
	}
	return p, "", false
}

// Sentence names the problems of a user in one line, for logs.
func (v Verdict) Sentence() string {
	var s []string
	for _, p := range v.Problems {
		s = append(s, p.Error())
	}
	return strings.Join(s, "; ")
}

// printable keeps what a file says from steering a terminal.
func printable(s string) string {
	const most = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r > '~' {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}

// expand replaces the tokens of AuthorizedKeysFile and makes the name absolute.
func expand(file string, u target.User) string {
	file = strings.NewReplacer("%%", "%", "%h", u.Home, "%u", u.Name, "%U", fmt.Sprint(u.UID)).Replace(file)
	if !strings.HasPrefix(file, "/") {
		file = path.Join(u.Home, file)
	}
	return file
}
