// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// ErrTarget means that a string is no [user@]HOST[:PORT].
var ErrTarget = errors.New("is no [user@]HOST[:PORT]")

// Target is an account of a server.
type Target struct {
	User string // may be empty: not said
	Host string // name or address, without brackets
	Port int    // from 1 to 65535
}

// ParseTarget reads [user@]HOST[:PORT]. An IPv6 address with a port stands in
// brackets. The port is 22 if none is said. Errors are ErrTarget.
func ParseTarget(s string) (Target, error) {
	bad := func(rule string) (Target, error) {
		return Target{}, fmt.Errorf("%.300q %w: %s", s, ErrTarget, rule)
	}
	var t Target
	host := s
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		t.User, host = s[:at], s[at+1:]
		if err := CheckUser(t.User); err != nil {
			return bad(err.Error())
		}
	}
	port := "22"
	switch {
	case strings.HasPrefix(host, "["):
		end := strings.IndexByte(host, ']')
		if end < 0 {
			return bad("the bracket is not closed")
		}
		rest := host[end+1:]
		host = host[1:end]
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return bad("what stands in brackets must be an IPv6 address")
		}
		if rest != "" {
			if rest[0] != ':' {
				return bad("after the bracket only :PORT can follow")
			}
			port = rest[1:]
		}
	case strings.Count(host, ":") == 1:
		host, port, _ = strings.Cut(host, ":")
	case strings.Contains(host, ":"):
		if _, err := netip.ParseAddr(host); err != nil {
			return bad("it has several colons and is no IPv6 address")
		}
	}
	if rule := checkHost(host); rule != "" {
		return bad(rule)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strings.HasPrefix(port, "+") {
		return bad("the port must be a number from 1 to 65535")
	}
	t.Host, t.Port = host, int(n)
	return t, nil
}

// Addr is host and port as net.Dial takes them.
func (t Target) Addr() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

// String is [user@]HOST:PORT.
func (t Target) String() string {
	if t.User == "" {
		return t.Addr()
	}
	return t.User + "@" + t.Addr()
}

// CheckUser tells whether a name can be that of an account: no control
// characters, blanks or quotes, which no server takes, and no leading hyphen.
func CheckUser(name string) error {
	if name == "" || len(name) > 256 || name[0] == '-' || strings.ContainsFunc(name, func(r rune) bool {
		return r <= ' ' || r == 0x7f || r > 0x7e || strings.ContainsRune(`"'`+"`"+`:/\@`, r)
	}) {
		return fmt.Errorf("the user %.80q is no account name", name)
	}
	return nil
}

// checkHost returns the rule that a host breaks. Names are those of RFC 1123,
// and the underscore that some have.
func checkHost(host string) string {
	if host == "" {
		return "the host is missing"
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		if strings.ContainsFunc(addr.Zone(), func(r rune) bool { return !nameRune(r) }) {
			return "the zone of the address is no interface name"
		}
		return ""
	}
	if len(host) > 253 {
		return "a host name has at most 253 characters"
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool { return r == '.' || !nameRune(r) }) {
			return "the host must be a name of letters, digits, hyphens and dots, or an IP address"
		}
	}
	return ""
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
}
