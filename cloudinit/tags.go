// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"slices"

	"gopkg.in/yaml.v3"
)

// safeTags are the tags that PyYAML's safe_load, by which cloud-init reads, makes
// something of (its SafeConstructor; in cloud-init 20.4 to 26.2). "!" is none, and !!merge that of the key <<.
var safeTags = map[yaml.Kind][]string{
	yaml.ScalarNode:   {"", "!", "!!null", "!!bool", "!!int", "!!float", "!!binary", "!!timestamp", "!!str", "!!merge"},
	yaml.SequenceNode: {"", "!", "!!seq", "!!omap", "!!pairs"},
	yaml.MappingNode:  {"", "!", "!!map", "!!set"},
}

// unknownTag finds a tag for which cloud-init would drop the whole document. The
// YAML package keeps all tags, and leaves it to its callers what they mean.
func unknownTag(n *yaml.Node) *Error {
	if tags, ok := safeTags[n.Kind]; ok && !slices.Contains(tags, n.ShortTag()) {
		return at(n, "", n.ShortTag(), ErrTag, "leave the tag out: cloud-init would ignore the whole document")
	}
	for _, c := range n.Content {
		if e := unknownTag(c); e != nil {
			return e
		}
	}
	return nil
}
