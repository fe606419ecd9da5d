// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// What the image's channels need of it, besides the agent.

// caPackage has the certificates that a system trusts, under the same name in
// all distributions of the table.
const caPackage = "ca-certificates"

// needsCAs reports whether a channel of the image trusts the system's
// certificates, and there are none.
func needsCAs(p *policy.Policy, t *target.Target) bool {
	for _, c := range p.Channels {
		if c.Type == policy.ChannelHTTP && c.CAFile == "" {
			return !slices.ContainsFunc(target.CABundles, t.IsRegular)
		}
	}
	return false
}

// caPackages are the packages that the machine lacks for its channels.
func (b *baker) caPackages() []string {
	if needsCAs(b.facts.policy, b.t) {
		return []string{caPackage}
	}
	return nil
}

// once says of each channel that takes one envelope in its life what follows.
func once(p *policy.Policy) string {
	var b strings.Builder
	for i, c := range p.Channels {
		if c.TakesOne() {
			fmt.Fprintf(&b, "; channels[%d] (%s) takes one envelope in its life, so that the card of a reset cannot leave by it: name another channel as well", i, c.Type)
			if c.User == "" {
				b.WriteString("; with several users it is the card of any one of them: say whose by user")
			}
		}
	}
	return b.String()
}

// channels looks at what they need.
func (c *checker) channels() {
	if needsCAs(c.facts.policy, c.t) {
		c.add(Warning, "ca-certificates", target.CABundles[0], "is missing, so that the channel http trusts no server", "install "+caPackage+", or name the CA's file as ca_file")
	}
}
