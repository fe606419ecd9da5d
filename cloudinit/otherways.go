// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"fmt"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// otherServers are packages of programs that log users in and do not ask for the code.
var otherServers = []string{"dropbear", "dropbear-run", "dropbear-initramfs", "tinysshd", "cockpit", "cockpit-ws", "shellinabox", "webmin"}

const (
	fixServer = "leave it out, or let it listen where only administrators reach it"
	fixExempt = "leave the group out, or bake the image without it in exempt_groups"
)

// otherWays finds ways past the code: other servers, and the image's exemptions for an
// enrolled user.
func (m *merger) otherWays(t theirs) {
	items, _ := t.list("packages")
	for i, n := range items {
		if n.Kind == yaml.SequenceNode && len(n.Content) > 0 {
			n = resolve(n.Content[0]) // [name, version]
		}
		if n.Kind == yaml.ScalarNode && slices.Contains(otherServers, n.Value) {
			m.warn(n, fmt.Sprintf("packages[%d]", i), n.Value, ErrOtherServer, fixServer)
		}
	}
	if m.image == nil || len(m.image.policy.SSHD.ExemptGroups) == 0 {
		return
	}
	items, _ = t.list("users")
	names, keys := lookFor("name"), lookFor("ssh_authorized_keys")
	for i, n := range items {
		name, _ := account(n, names, keys)
		if name == nil || n.Kind != yaml.MappingNode {
			continue
		}
		for _, field := range []string{"groups", "primary_group"} {
			if f := lookFor(field).in(n); f != nil {
				m.exempt(f.value, fmt.Sprintf("users[%d].%s", i, field), name.Value, wordsOf(f.value))
			}
		}
	}
	// groups: [a, {b: [mara]}], or a mapping.
	if f, _ := t.get("groups"); f != nil {
		all := []*yaml.Node{f.value}
		if f.value.Kind == yaml.SequenceNode {
			all = f.value.Content
		}
		for _, n := range all {
			for group, members := range pairs(resolve(n)) {
				for _, user := range wordsOf(resolve(members)) {
					m.exempt(group, "groups", user, []string{group.Value})
				}
			}
		}
	}
}

// exempt warns of an enrolled user in a group that the image exempts from the code.
func (m *merger) exempt(n *yaml.Node, path, user string, groups []string) {
	if _, is := m.enrolled(user); !is || user == "root" {
		return
	}
	for _, g := range groups {
		if slices.Contains(m.image.policy.SSHD.ExemptGroups, g) {
			m.warn(n, path, user, fmt.Errorf("%w (group %s)", ErrExempt, g), fixExempt)
			return
		}
	}
}

// wordsOf returns the names in a text with commas, a list, or the keys of a mapping.
func wordsOf(n *yaml.Node) (words []string) {
	switch n.Kind {
	case yaml.ScalarNode:
		for w := range strings.SplitSeq(n.Value, ",") {
			words = append(words, strings.TrimSpace(w))
		}
	case yaml.SequenceNode:
		for _, c := range n.Content {
			words = append(words, strings.TrimSpace(resolve(c).Value))
		}
	case yaml.MappingNode:
		for key := range pairs(n) {
			words = append(words, key.Value)
		}
	}
	return words
}
