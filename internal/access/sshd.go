// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package access

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// MaxAsked is how often a checker asks sshd at most: each time takes some 20 to
// 50 ms, and at boot sshd waits for the agent.
const MaxAsked = 64

// settings are what sshd -T prints, by keyword in lower case. A keyword of
// several lines has several values; a line of several words is one value.
type settings map[string][]string

// value returns the first value of a keyword, or "".
func (s settings) value(keyword string) string {
	if v := s[keyword]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// word returns the first value in lower case, for words that are not names.
func (s settings) word(keyword string) string { return strings.ToLower(s.value(keyword)) }

// takesKeyAndCode reports whether a key and then a code make a whole login. For a
// user who is exempt the key alone is one.
func (s settings) takesKeyAndCode() bool {
	if s.word("usepam") == "no" || s.word("pubkeyauthentication") == "no" {
		return false
	}
	methods := s.word("authenticationmethods")
	if methods == "" || methods == "any" {
		return true
	}
	for list := range strings.FieldsSeq(methods) {
		switch strings.ReplaceAll(list, "keyboard-interactive:pam", "keyboard-interactive") {
		case "publickey":
			return true
		case "publickey,keyboard-interactive", "keyboard-interactive,publickey":
			return s.word("kbdinteractiveauthentication") != "no"
		}
	}
	return false
}

func parseSettings(out []byte) settings {
	s := settings{}
	for line := range strings.Lines(string(out)) {
		keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if keyword = strings.ToLower(keyword); keyword != "" {
			s[keyword] = append(s[keyword], strings.TrimSpace(value))
		}
	}
	// Debian 11 knows this one by its old name only.
	if old := s["pubkeyacceptedkeytypes"]; len(old) > 0 && len(s["pubkeyacceptedalgorithms"]) == 0 {
		s["pubkeyacceptedalgorithms"] = old
	}
	return s
}

// mainFile is the configuration that sshd is started with: that of the bake, or the
// distribution's where there was none.
func mainFile(t *target.Target) string {
	if t.Exists(target.SSHDMain) {
		return target.SSHDMain
	}
	return target.SSHDConfig
}

// testArgs is the command that prints sshd's settings for a connection.
func (c *Checker) testArgs(spec string) []string {
	args := []string{target.SSHD, "-T", "-C", spec}
	if c.SSHDArgs != nil {
		return append(args, c.SSHDArgs...)
	}
	if f := mainFile(c.t); f != target.SSHDConfig {
		args = append(args, "-f", f)
	}
	return args
}

// An answer is what sshd said about users whom no Match block tells apart.
type answer struct {
	settings settings
	err      error
}

var errEmpty = errors.New("sshd -T printed nothing")

// settings asks sshd for the settings of a user, who comes from an address that no
// rule is about. ok is false where there is no answer; v says so.
func (c *Checker) settings(ctx context.Context, u target.User, v *Verdict) (settings, bool) {
	class := c.matches.class(u.Name, func() []string { return c.groupNames(ctx, u) })
	a, asked := c.asked[class]
	if !asked && len(c.asked) >= MaxAsked {
		v.add(NotAsked, u, "")
		return nil, false
	}
	if !asked {
		a = c.ask(ctx, u.Name)
		c.asked[class] = a
	}
	if a.err != nil {
		r := SSHDRejects
		if ce, ok := errors.AsType[*target.CommandError](a.err); !ok || ce.Code < 0 || strings.Contains(ce.Stderr, "no hostkeys available") {
			r = NotJudged // it did not run, the time was over, or the host keys come later in the boot
		}
		v.add(r, u, firstLine(a.err))
	}
	return a.settings, a.err == nil
}

func (c *Checker) ask(ctx context.Context, user string) answer {
	// sshd needs its directory also for this, and the unit makes it later in the boot.
	if !c.t.Exists(target.SSHDRunDir) {
		if err := c.t.Mkdir(target.SSHDRunDir, 0o755); err != nil {
			return answer{err: err}
		}
	}
	spec := "user=" + user + ",host=client.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22"
	out, err := c.t.Run(ctx, c.testArgs(spec)...)
	if err == nil && len(out) == 0 {
		err = errEmpty
	}
	if err != nil {
		return answer{err: err}
	}
	return answer{settings: parseSettings(out)}
}

func firstLine(err error) string {
	if ce, ok := errors.AsType[*target.CommandError](err); ok && ce.Stderr != "" {
		s, _, _ := strings.Cut(ce.Stderr, "\n")
		return s
	}
	return err.Error()
}

// matches are the patterns of all Match blocks that tell users apart. Two users
// whom the same of them match get the same settings.
type matches struct {
	users, groups []string
	each          bool // a block asks a program, or a file could not be read: every user counts for himself
}

// read collects the patterns from sshd's main file and all that it includes.
func (m *matches) read(t *target.Target) { m.file(t, mainFile(t), 0) }

func (m *matches) file(t *target.Target, name string, depth int) {
	const maxDepth = 16 // as in sshd
	text, err := t.ReadFile(name)
	if err != nil || depth > maxDepth {
		m.each = m.each || depth == 0 || t.Exists(name)
		return
	}
	for line := range strings.Lines(string(text)) {
		switch keyword, args := target.SSHDDirective(line); keyword {
		case "include":
			for _, pattern := range args {
				for _, f := range t.SSHDIncluded(pattern) {
					m.file(t, f, depth+1)
				}
			}
		case "match":
			m.criteria(args)
		}
	}
}

// criteria reads one Match line.
func (m *matches) criteria(args []string) {
	for i := 0; i < len(args); i++ {
		name, value, joined := strings.Cut(strings.ToLower(args[i]), "=")
		switch name {
		case "all", "canonical", "final", "invalid-user":
			continue
		}
		if joined {
			_, value, _ = strings.Cut(args[i], "=")
		} else if i++; i < len(args) {
			value = args[i]
		}
		var list *[]string
		switch name {
		case "user":
			list = &m.users
		case "group":
			list = &m.groups
		case "address", "host", "localaddress", "localport", "rdomain", "version", "sessiontype", "command":
			continue
		default: // exec, and what later versions bring
			m.each = true
			continue
		}
		for p := range strings.SplitSeq(value, ",") {
			if p = strings.TrimPrefix(p, "!"); p != "" && !slices.Contains(*list, p) {
				*list = append(*list, p)
			}
		}
	}
}

// class returns equal texts for users who get the same settings. The groups are
// asked for only where a block is about groups.
func (m *matches) class(user string, groups func() []string) string {
	if m.each {
		return user
	}
	bits := make([]byte, 0, len(m.users)+len(m.groups))
	bit := func(is bool) {
		if is {
			bits = append(bits, '1')
		} else {
			bits = append(bits, '0')
		}
	}
	for _, p := range m.users {
		bit(match(p, user))
	}
	if len(m.groups) > 0 {
		names := groups()
		for _, p := range m.groups {
			bit(slices.ContainsFunc(names, func(g string) bool { return match(p, g) }))
		}
	}
	return string(bits)
}
