// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// A Host is where the instances of a document run, as far as it is known.
type Host struct {
	Provider Provider // the zero value: any
	Image    *Image   // nil: any
}

// Review returns what keeps users of s from logging in to an instance that gets the
// document: warnings where that depends on what only the instance knows, and errors
// where it is certain. doc is the owner's document that s is merged into, named file,
// or nil.
//
// The locks in doc that are certain whatever the host are errors of [Spec.Merge], and
// not repeated here.
func (s Spec) Review(h Host, file string, doc []byte) (warnings, errs Errors) {
	if _, err := s.Layer(); err != nil {
		return nil, nil // Document and Merge return it
	}
	warnings, errs = s.refusedByImage(h.Image)
	warnings = append(warnings, s.lockedAccounts()...)
	w, e := s.wayOut(h)
	warnings, errs = append(warnings, w...), append(errs, e...)
	if doc == nil {
		return warnings, errs
	}
	m := merger{spec: s, image: h.Image}
	if k, e := kindOf(doc); e == nil {
		m.look(k, doc, 0)
	}
	m.afterLook()
	return append(warnings, m.warnings.named(file)...), append(errs, m.refused.named(file)...)
}

// refusedByImage returns the logins that sshd of the image refuses. A key that it
// refuses is a warning where the user has another one.
func (s Spec) refusedByImage(image *Image) (warnings, errs Errors) {
	if image == nil {
		return nil, nil
	}
	for i, u := range s.Users {
		if u.Name == "root" && image.policy.SSHD.RootLogin == policy.RootDeny {
			errs = append(errs, &Error{Path: fmt.Sprintf("users[%d].name", i), Value: u.Name, Rule: ErrRootDenied,
				Fix: "enroll the image's own user instead, or bake the image with another root_login"})
		}
		if u.Name != "root" && slices.Contains(image.policy.SSHD.ExemptUsers, u.Name) {
			warnings = append(warnings, &Error{Path: fmt.Sprintf("users[%d].name", i), Value: u.Name, Rule: fmt.Errorf("%w (exempt_users)", ErrExempt),
				Fix: "enroll another user, or bake the image without this one in exempt_users"})
		}
		var refused Errors
		for j, line := range u.SSHKeys {
			k, e := sshKey(line)
			if e == nil {
				e = image.accepts(k)
			}
			if e != nil {
				e.Path = fmt.Sprintf("users[%d].ssh_keys[%d]", i, j)
				refused = append(refused, e)
			}
		}
		if len(refused) < len(u.SSHKeys) {
			warnings = append(warnings, refused...)
		} else {
			errs = append(errs, refused...)
		}
	}
	return warnings, errs
}

// lockedAccounts returns what s itself says that leaves a user without a shell.
func (s Spec) lockedAccounts() Errors {
	var warnings Errors
	for i, u := range s.Users {
		if noShell(u.Shell) {
			warnings = append(warnings, &Error{Path: fmt.Sprintf("users[%d].shell", i), Value: u.Shell, Rule: ErrNoShell, Fix: fixNoShell})
		}
		if len(u.SSHKeys) > 0 && !slices.ContainsFunc(u.SSHKeys, func(line string) bool {
			k, e := sshKey(line)
			return e == nil && !k.forced()
		}) {
			warnings = append(warnings, &Error{Path: fmt.Sprintf("users[%d].ssh_keys", i), Value: u.Name, Rule: ErrForcedCommand, Fix: fixForced})
		}
	}
	return warnings
}

const (
	disableRoot = "disable_root"

	fixDisableRoot = "write disable_root: false, or enroll the image's own user instead of root"
	fixForced      = "add a key without command="
	fixNoShell     = "name a shell, such as /bin/bash, or do not enroll this user"
	fixNoKey       = "add ssh_authorized_keys to this user, or give the user an SSH key beside the recipient"
)

// noShell reports whether a login shell is one of the programs that only end a
// session.
func noShell(shell string) bool {
	return slices.Contains([]string{"nologin", "false", "true", "sync", "halt", "shutdown"}, path.Base(shell))
}

// isTrue reads a value as cloud-init's util.is_true does.
func isTrue(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && slices.Contains(yes, strings.ToLower(strings.TrimSpace(n.Value)))
}

// isSet reports whether Python takes a value for true.
func isSet(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode {
		return len(n.Content) > 0
	}
	return n.Value != "" && n.ShortTag() != "!!null" && (n.Style != 0 || !slices.Contains([]string{"false", "no", "off", "0"}, strings.ToLower(n.Value)))
}

// enrolled returns the user of s of that name; also one that the image names.
func (m *merger) enrolled(name string) (User, bool) {
	if i := slices.IndexFunc(m.spec.Users, func(u User) bool { return u.Name == name }); i >= 0 {
		return m.spec.Users[i], true
	}
	return User{Name: name}, m.image != nil && slices.ContainsFunc(m.image.policy.Users, func(u policy.User) bool { return u.Name == name })
}

func (m *merger) warn(n *yaml.Node, path, value string, rule error, fix string) {
	m.warnings = append(m.warnings, at(n, m.prefix+path, value, rule, fix))
}

// lockouts finds what in a cloud-config keeps enrolled users from logging in. It
// returns what is certain, and keeps the rest as warnings.
func (m *merger) lockouts(t theirs) (errs Errors) {
	if t.root == nil {
		return nil
	}
	if f, _ := t.get(disableRoot); f != nil && isTrue(f.value) {
		if _, is := m.enrolled("root"); is {
			errs = append(errs, at(f.value, disableRoot, f.value.Value, ErrDisableRoot, fixDisableRoot))
		}
	}
	if f, _ := t.get("allow_public_ssh_keys"); f != nil && !isTrue(f.value) {
		m.panelOff = at(f.value, m.prefix+"allow_public_ssh_keys", "", ErrPanelKeys, "leave the key out, or give the user an SSH key")
	}
	if items, es := t.list("users"); len(es) == 0 && items != nil {
		f, _ := t.get("users")
		m.usersAt = at(f.key, m.prefix+"users", "", ErrNotListed, "")
		fields := newFields()
		for i, n := range items {
			errs = append(errs, m.lockedAccount(fmt.Sprintf("users[%d]", i), n, fields)...)
		}
	}
	// The old way to name the image's own user.
	if f, _ := t.get("user"); f != nil && isSet(f.value) {
		m.hasDefault = true
		fields := newFields()
		if name, _ := account(f.value, fields["name"], fields["ssh_authorized_keys"]); name != nil {
			m.ownUser = name.Value
		}
		errs = append(errs, m.lockedAccount("user", f.value, fields)...)
	}
	m.expiredPasswords(t)
	return errs
}

// accountFields are the keys of an item of users that are looked at.
var accountFields = []string{"name", "ssh_authorized_keys", "ssh_import_id", "ssh_redirect_user", "shell", "expiredate", "no_create_home", "system"}

func newFields() map[string]finder {
	fields := make(map[string]finder, len(accountFields))
	for _, name := range accountFields {
		fields[name] = lookFor(name)
	}
	return fields
}

// lockedAccount looks at an item of users.
func (m *merger) lockedAccount(path string, n *yaml.Node, fields map[string]finder) (errs Errors) {
	name, _ := account(n, fields["name"], fields["ssh_authorized_keys"])
	if name == nil {
		return nil
	}
	if n.Kind == yaml.ScalarNode && name.Value == "default" {
		m.hasDefault = true
		return nil
	}
	if m.listed == nil {
		m.listed, m.keyed = make(map[string]bool), make(map[string]bool)
	}
	m.listed[name.Value] = true
	u, is := m.enrolled(name.Value)
	if !is {
		return nil
	}
	get := func(key string) *yaml.Node {
		if n.Kind == yaml.MappingNode {
			if f := fields[key].in(n); f != nil && isSet(f.value) {
				return f.value
			}
		}
		return nil
	}
	keys := get("ssh_authorized_keys")
	imported := get("ssh_import_id")
	if keys != nil || imported != nil || len(u.SSHKeys) > 0 {
		m.keyed[u.Name] = true
	}
	if r := get("ssh_redirect_user"); r != nil {
		errs = append(errs, at(r, path+".ssh_redirect_user", u.Name, ErrRedirected, "leave ssh_redirect_user out, and give the user an SSH key of its own"))
	} else if keys == nil && len(u.SSHKeys) == 0 && u.Name != "root" && path != "user" {
		if imported != nil {
			m.warn(imported, path+".ssh_import_id", u.Name, ErrLateKeys, fixNoKey)
		} else {
			m.warn(name, path, u.Name, ErrNoKey, fixNoKey)
		}
	}
	if keys != nil && len(u.SSHKeys) == 0 {
		errs = append(errs, m.lockedKeys(path+".ssh_authorized_keys", u.Name, keys, imported != nil)...)
	}
	if shell := get("shell"); shell != nil && noShell(shell.Value) {
		m.warn(shell, path+".shell", shell.Value, ErrNoShell, fixNoShell)
	}
	if day := get("expiredate"); day != nil {
		m.warn(day, path+".expiredate", day.Value, ErrAccountExpires, "leave it out, or make sure that the day is far enough away")
	}
	for _, key := range []string{"no_create_home", "system"} {
		if f := get(key); f != nil && (keys != nil || imported != nil) {
			m.warn(f, path+"."+key, u.Name, ErrNotCreated, "leave it out: a user who logs in needs a home directory")
		}
	}
	return errs
}

// lockedKeys looks at the keys that a document gives to an enrolled user.
func (m *merger) lockedKeys(path, user string, keys *yaml.Node, others bool) (errs Errors) {
	lines := keys.Content
	if keys.Kind == yaml.ScalarNode {
		lines = []*yaml.Node{keys}
	}
	var bad, refused Errors
	usable, shell := 0, 0
	for i, n := range lines {
		n = resolve(n)
		text := strings.TrimSpace(n.Value)
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		k, e := sshKey(text)
		list := &bad
		if e == nil {
			if e = m.image.accepts(k); e != nil {
				list = &refused
			}
		}
		if e != nil {
			e.Path, e.Line, e.Column = fmt.Sprintf("%s[%d]", path, i), n.Line, n.Column
			*list = append(*list, e)
			continue
		}
		usable++
		if !k.forced() {
			shell++
		}
	}
	switch {
	case usable == 0 && len(refused) == 0 && len(bad) > 0 && !others:
		for _, e := range bad {
			e.Rule = fmt.Errorf("user %q %w: %w", user, ErrNoUsableKey, e.Rule)
		}
		return bad
	case usable == 0 && len(refused) > 0 && !others:
		for _, e := range refused {
			e.Path, e.Rule = m.prefix+e.Path, fmt.Errorf("user %q %w: %w", user, ErrNoUsableKey, e.Rule)
		}
		m.refused = append(m.refused, refused...)
	case usable > 0 && shell == 0:
		m.warn(keys, path, user, ErrForcedCommand, fixForced)
	}
	if usable > 0 || others {
		for _, e := range append(bad, refused...) {
			e.Path = m.prefix + e.Path
			m.warnings = append(m.warnings, e)
		}
	}
	return nil
}

// expiredPasswords finds passwords that cloud-init expires, as its module
// set_passwords does unless it is told not to.
func (m *merger) expiredPasswords(t theirs) {
	const fix = "write expire: false under chpasswd"
	chpasswd, _ := t.get("chpasswd")
	named := false
	if chpasswd != nil && chpasswd.value.Kind == yaml.MappingNode {
		f := chpasswd.value
		if e := lookFor("expire").in(f); e != nil && !isTrue(e.value) {
			return
		}
		for _, n := range passwordsOf(f) {
			named = true
			name, _, _ := strings.Cut(n.Value, ":")
			if _, is := m.enrolled(strings.TrimSpace(name)); is {
				m.warn(n, "chpasswd", strings.TrimSpace(name), ErrPasswordExpires, fix)
			}
		}
	}
	// Without any of those, the password is of the image's own user, who is one that
	// the document does not make.
	f, _ := t.get("password")
	if f == nil || named || !isSet(f.value) {
		return
	}
	for _, u := range m.spec.Users {
		if u.Name != "root" && len(u.SSHKeys) == 0 && !m.listed[u.Name] || u.Name == m.ownUser {
			m.warn(f.key, "password", u.Name, ErrPasswordExpires, fix)
		}
	}
}

// passwordsOf returns a node for each user whose password chpasswd sets. Its value is
// the name, with the password after a colon where the document has it so.
func passwordsOf(chpasswd *yaml.Node) []*yaml.Node {
	var out []*yaml.Node
	if f := lookFor("list").in(chpasswd); f != nil {
		if f.value.Kind == yaml.ScalarNode {
			for line := range strings.Lines(f.value.Value) {
				if strings.TrimSpace(line) != "" {
					out = append(out, &yaml.Node{Kind: yaml.ScalarNode, Value: line, Line: f.value.Line, Column: f.value.Column})
				}
			}
		}
		for _, n := range f.value.Content {
			out = append(out, resolve(n))
		}
	}
	if f := lookFor("users").in(chpasswd); f != nil {
		names := lookFor("name")
		for _, n := range f.value.Content {
			if n = resolve(n); n.Kind == yaml.MappingNode {
				if f := names.in(n); f != nil {
					out = append(out, f.value)
				}
			}
		}
	}
	return out
}

// afterLook adds what only all parts of a document together tell.
func (m *merger) afterLook() {
	for _, u := range m.spec.Users {
		if len(u.SSHKeys) > 0 || m.spec.Vendor {
			continue
		}
		if m.usersAt != nil && !m.hasDefault && u.Name != "root" && !m.listed[u.Name] {
			e := *m.usersAt
			e.Value, e.Fix = u.Name, fmt.Sprintf(`add "- default" to the list if %s is the image's own user, or the user with a key`, u.Name)
			m.warnings = append(m.warnings, &e)
		}
		if m.panelOff != nil && !m.keyed[u.Name] {
			e := *m.panelOff
			e.Value = u.Name
			m.warnings = append(m.warnings, &e)
		}
	}
	m.warnings.sort()
}
