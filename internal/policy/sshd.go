// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"net/netip"
	"slices"
)

// given reports whether the block says anything.
func (s SSHD) given() bool {
	return s.Algorithms != "" || s.ExemptGroups != nil || s.ExemptUsers != nil || s.ExemptFrom != nil ||
		s.RootLogin != "" || s.TCPForwarding != ""
}

// Exempts tells whether a login needs its key alone: that of a user with these
// groups, from this address. Root is never exempt, since its account is
// everybody's who once had a key of it. The zero address is of everywhere.
func (s SSHD) Exempts(user string, groups []string, addr netip.Addr) bool {
	return user != "root" && (slices.Contains(s.ExemptUsers, user) ||
		slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(s.ExemptGroups, g) }) ||
		slices.ContainsFunc(s.ExemptFrom, func(n string) bool {
			p, err := netip.ParsePrefix(n)
			return err == nil && p.Contains(addr)
		}))
}

func (v *validator) sshd(s SSHD) {
	v.word("sshd.algorithms", s.Algorithms, AlgorithmsCompatible, AlgorithmsStrict, AlgorithmsDistro)
	v.word("sshd.root_login", s.RootLogin, RootAuto, RootTOTP, RootDeny)
	v.word("sshd.tcp_forwarding", s.TCPForwarding, ForwardingDeny, ForwardingAllow)
	v.accounts("sshd.exempt_groups", s.ExemptGroups)
	v.accounts("sshd.exempt_users", s.ExemptUsers)
	v.networks("sshd.exempt_from", s.ExemptFrom)
}

// accounts checks a list of users or groups, whose names sshd_config takes as
// patterns: "*", "?", "!" and "," are none of a valid name.
func (v *validator) accounts(path string, names []string) {
	v.notEmpty(path, names)
	for i, name := range names {
		path := at(path, i)
		switch {
		case ValidUserName(name) != nil:
			v.fail(path, show(name), ErrUserName, userNameFix)
		case name == "root":
			v.fail(path, name, ErrExemptRoot, "give automation an account of its own, and exempt that one")
		case slices.Contains(names[:i], name):
			v.fail(path, name, ErrDuplicate, "leave out one of them")
		}
	}
}

// The shortest prefixes of a network whose logins may do without a code. All
// private networks have longer ones; what is shorter is a part of the Internet.
const (
	minPrefix4 = 8
	minPrefix6 = 16
)

// loopback are the addresses that every local user can connect from, RFC 1122
// section 3.2.1.3 and RFC 4291 section 2.5.3. IPv4 addresses in the form of IPv6
// ones are refused as such.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func (v *validator) networks(path string, list []string) {
	v.notEmpty(path, list)
	for i, s := range list {
		path := at(path, i)
		p, err := netip.ParsePrefix(s)
		if err != nil {
			fix := `write a network such as "10.20.0.0/16" or "fd00:1::/64"`
			if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
				fix = `write "` + a.String() + "/" + itoa(a.BitLen()) + `" for this one address`
			}
			v.fail(path, show(s), ErrCIDR, fix)
			continue
		}
		shortest := minPrefix6
		if p.Addr().Is4() {
			shortest = minPrefix4
		}
		switch {
		case p.Addr().Is4In6():
			v.fail(path, s, ErrCIDR, "write it as the IPv4 network that it is")
		case p.Bits() < shortest:
			v.fail(path, s, ErrExemptAll, "name the networks that automation comes from, of /"+itoa(shortest)+" or longer")
		case slices.ContainsFunc(loopback, p.Overlaps):
			v.fail(path, s, ErrExemptLocal, "leave it out, and exempt the account by exempt_users; a range that covers more, write as those of its parts that automation comes from")
		case p.Masked().String() != s:
			// sshd refuses to start with bits behind the prefix.
			v.fail(path, s, ErrCIDR, `write "`+p.Masked().String()+`"`)
		case slices.Contains(list[:i], s):
			v.fail(path, s, ErrDuplicate, "leave out one of them")
		}
	}
}

func (v *validator) notEmpty(path string, list []string) {
	if list != nil && len(list) == 0 {
		v.fail(path, "", ErrEmptyValue, "leave the key out where nobody is exempt")
	}
}

func (v *validator) clean(p *Policy) {
	const path = "clean.build_user"
	switch name := p.Clean.BuildUser; {
	case name == "":
	case ValidUserName(name) != nil:
		v.fail(path, show(name), ErrUserName, userNameFix)
	case name == "root":
		v.fail(path, name, ErrBuildUser, "leave it out: root's keys and password go in any case, and the account stays")
	case slices.ContainsFunc(p.Users, func(u User) bool { return u.Name == name }):
		v.fail(path, name, ErrBuildUser, "it is one of users, so it has to stay; name another, or leave it out")
	}
}
