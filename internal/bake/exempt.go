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

// criteria are the Match lines of the exemptions, without the keyword.
func criteria(p policy.SSHD) []string {
	const notRoot = " User *,!root"
	var cs []string
	if len(p.ExemptGroups) > 0 {
		cs = append(cs, "Group "+strings.Join(p.ExemptGroups, ",")+notRoot)
	}
	if len(p.ExemptUsers) > 0 {
		cs = append(cs, "User "+strings.Join(p.ExemptUsers, ","))
	}
	if len(p.ExemptFrom) > 0 {
		cs = append(cs, "Address "+strings.Join(p.ExemptFrom, ",")+notRoot)
	}
	return cs
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
		case !p.Exempts(u.Name, groups, netip.Addr{}):
		case slices.Contains(p.ExemptUsers, u.Name):
			out[u.Name] = "exempt_users"
		default:
			i := slices.IndexFunc(groups, func(g string) bool { return slices.Contains(p.ExemptGroups, g) })
			out[u.Name] = "group " + groups[i]
		}
	}
	return out, nil
}

// exemptRoot finds an account with root's rights and another name that would log
// in with its key alone. sshd's rule knows root by its name.
func exemptRoot(t *target.Target, p policy.SSHD) (string, error) {
	users, err := t.Users()
	if err != nil {
		return "", err
	}
	for _, u := range users {
		groups, err := t.GroupsOf(u)
		if err != nil {
			return "", err
		}
		if u.UID == 0 && u.Name != "root" && u.CanLogin() && (len(p.ExemptFrom) > 0 || p.Exempts(u.Name, groups, netip.Addr{})) {
			return u.Name, nil
		}
	}
	return "", nil
}
