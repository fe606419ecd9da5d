// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// keyAlone is AuthenticationMethods of a login that the policy exempts from the
// code. The exemption is sshd's, not PAM's: automation such as Ansible, rsync
// and everything with BatchMode takes part in no keyboard-interactive login.
const keyAlone = "publickey"

// criteria are the Match lines of the exemptions, without the keyword. roots are
// the accounts with root's rights and another name: no exemption is for them.
func criteria(p policy.SSHD, roots []string) []string {
	notRoot := " User *,!root"
	for _, name := range roots {
		notRoot += ",!" + userPattern(name)
	}
	var cs []string
	if len(p.ExemptGroups) > 0 {
		cs = append(cs, "Group "+strings.Join(p.ExemptGroups, ",")+notRoot)
	}
	users := slices.DeleteFunc(slices.Clone(p.ExemptUsers), func(u string) bool { return slices.Contains(roots, u) })
	if len(users) > 0 {
		cs = append(cs, "User "+strings.Join(users, ","))
	}
	if len(p.ExemptFrom) > 0 {
		cs = append(cs, "Address "+strings.Join(p.ExemptFrom, ",")+notRoot)
	}
	return cs
}

// userPattern matches a name of /etc/passwd, whatever is in it, in a list of
// patterns of sshd_config(5).
func userPattern(name string) string {
	pattern := []byte(name)
	for i, c := range pattern {
		if c <= ' ' || c >= 0x7f || strings.IndexByte("*?!,\"'#\\=", c) >= 0 {
			pattern[i] = '?'
		}
	}
	return string(pattern)
}

// rootNames are the names of accounts with root's rights, root itself aside,
// sorted. The shell does not matter: without one there are subsystems and
// forwardings still.
func rootNames(t *target.Target) ([]string, error) {
	users, err := t.Users()
	if err != nil {
		return nil, missingIsFine(err)
	}
	var names []string
	for _, u := range users {
		if u.UID == 0 && u.Name != "root" {
			names = append(names, u.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// A connection is what sshd's Match blocks look at.
type connection struct {
	user string
	addr netip.Addr // of the client
}

// addresses are where connections are asked about: one that is not exempt, and
// one of each network that is.
func addresses(p policy.SSHD) []netip.Addr {
	var as []netip.Addr
	// Of the ranges for documentation, RFC 5737, so that no rule of a real network
	// is about them.
	for _, s := range []string{"192.0.2.1", "198.51.100.1", "203.0.113.1"} {
		if a := netip.MustParseAddr(s); !p.Exempts("", nil, a) {
			as = append(as, a)
			break
		}
	}
	for _, s := range p.ExemptFrom {
		if n, err := netip.ParsePrefix(s); err == nil {
			as = append(as, n.Addr())
		}
	}
	return as
}

// exemptAccounts are the accounts that log in with their key alone wherever they
// come from, each with the reason.
func exemptAccounts(t *target.Target, p policy.SSHD) (map[string]string, error) {
	users, err := t.Users()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, u := range users {
		groups, err := t.GroupsOf(u)
		if err != nil {
			return nil, err
		}
		switch {
		case u.UID == 0 || !p.Exempts(u.Name, groups, netip.Addr{}):
		case slices.Contains(p.ExemptUsers, u.Name):
			out[u.Name] = "exempt_users"
		default:
			i := slices.IndexFunc(groups, func(g string) bool { return slices.Contains(p.ExemptGroups, g) })
			out[u.Name] = "group " + groups[i]
		}
	}
	return out, nil
}

// rootExempt finds an account with root's rights and another name that an
// exemption of the settings is for, as they are on the disk: it has become such an
// account after they were written. Empty: there is none.
func rootExempt(t *target.Target, p policy.SSHD) (string, error) {
	names, err := rootNames(t)
	if err != nil || len(names) == 0 {
		return "", err
	}
	want := criteria(p, names)
	for _, file := range []string{target.SSHDLogin, target.SSHDDropIn} {
		text, err := t.ReadFile(file)
		if err != nil {
			continue // check reports it
		}
		for _, line := range matchLines(string(text)) {
			if !slices.Contains(want, line) {
				return strings.Join(names, ", "), nil
			}
		}
	}
	return "", nil
}

// matchLines are the criteria of the Match lines of our settings, but for the one
// that closes them.
func matchLines(text string) []string {
	var out []string
	for line := range strings.Lines(text) {
		if c, ok := strings.CutPrefix(strings.TrimSpace(line), "Match "); ok && c != "all" {
			out = append(out, c)
		}
	}
	return out
}
