// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import "strings"

// closing returns where the bracket is that closes the one at the offset, in
// YAML's flow style (JSON is a part of it), and the last character of what is
// inside, but for blanks and comments; 0 if nothing is. It returns -1 if there
// is no such bracket.
//
// It is not a parser: what it finds is used only if a parser agrees with the
// result.
func closing(text string, open int) (at int, last byte) {
	depth := 0
	fresh := true // a quote may begin here
	for i := open; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '[' || c == '{':
			depth++
			fresh = true
		case c == ']' || c == '}':
			if depth--; depth == 0 {
				return i, last
			}
			fresh = false
		case c == '"' && fresh:
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			fresh = false
		case c == '\'' && fresh:
			// A quote inside is two of them: the second begins another text.
			for i++; i < len(text) && text[i] != '\''; i++ {
			}
			fresh = i+1 < len(text) && text[i+1] == '\''
		case c == '#' && (i == 0 || strings.IndexByte(" \t\r\n", text[i-1]) >= 0):
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
			continue
		case c == ',' || c == ':':
			fresh = true
		case strings.IndexByte(" \t\r\n", c) >= 0:
			continue
		default:
			fresh = false
		}
		if i != open {
			last = c
		}
	}
	return -1, 0
}
