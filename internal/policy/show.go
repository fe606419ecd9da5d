// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"net/url"
	"strings"
	"unicode"

	"gopkg.in/yaml.v3"
)

// longest is how much of a value an error shows, in characters.
const longest = 80

// show returns a value as an error may show it: not at all if it looks like a
// secret in a wrong place, and not endlessly.
func show(s string) string {
	folded := strings.ToLower(s)
	for _, word := range []string{"secret", "private", "age-plugin-"} {
		if strings.Contains(folded, word) {
			return ""
		}
	}
	if r := []rune(s); len(r) > longest {
		return string(r[:longest]) + "…"
	}
	return s
}

// shown is show for the scalar at path.
func shown(path string, n *yaml.Node) string {
	for _, key := range []string{"token", "url", "headers", "template", "hmac_key"} {
		if path == key || strings.HasSuffix(path, "."+key) {
			return ""
		}
	}
	return show(n.Value)
}

// shownName is show for an unknown key, which is in a path and so without quotes: a
// name with anything that a terminal acts upon, or shows in another order, is left out.
func shownName(key string) string {
	if s := show(key); s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	return "…"
}

// showURL returns what of a URL is no secret.
func showURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" || u.Host == "" {
		return ""
	}
	return show(u.Scheme + "://" + u.Host + "/…")
}
