// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"net/netip"
	"testing"
)

func TestExempts(t *testing.T) {
	automation := SSHD{ExemptGroups: []string{"deploy"}, ExemptUsers: []string{"ansible"}, ExemptFrom: []string{"10.20.0.0/16", "fd00:1::/64"}}
	for _, test := range []struct {
		user, addr string
		groups     []string
		want       bool
	}{
		{"alice", "192.0.2.1", nil, false},
		{"alice", "192.0.2.1", []string{"alice", "deploys"}, false},
		{"alice", "192.0.2.1", []string{"alice", "deploy"}, true},
		{"ansible", "192.0.2.1", nil, true},
		{"alice", "10.20.255.255", nil, true},
		{"alice", "10.21.0.0", nil, false},
		{"alice", "fd00:1::1", nil, true},
		{"alice", "fd00:1:0:1::1", nil, false},
		{"root", "10.20.0.1", []string{"deploy"}, false},
		{"", "192.0.2.1", nil, false},
	} {
		addr := netip.MustParseAddr(test.addr)
		if got := automation.Exempts(test.user, test.groups, addr); got != test.want {
			t.Errorf("%s of %q from %s: %v, want %v", test.user, test.groups, addr, got, test.want)
		}
		if (SSHD{}).Exempts(test.user, test.groups, addr) {
			t.Errorf("%s is exempt by no rule", test.user)
		}
	}
	if !automation.Exempts("ansible", nil, netip.Addr{}) || automation.Exempts("alice", nil, netip.Addr{}) {
		t.Error("without an address only accounts and groups count")
	}
}
