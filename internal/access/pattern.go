// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package access

// match reports whether a name matches a pattern with "*" and "?", as
// match_pattern of OpenSSH's match.c. It takes time in proportion to the product
// of both lengths at most.
func match(pattern, name string) bool {
	p, n := 0, 0
	star, retry := -1, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, retry = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			retry++
			p, n = star+1, retry
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
