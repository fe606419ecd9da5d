// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package console

import (
	"slices"
	"strings"
)

const (
	// reach is how many lines after its beginning a broken line may end.
	reach = 16

	// maxPieces is into how many pieces a line may be broken.
	maxPieces = 4
)

// splice tries to put the line that begins at lines[i][at] together from its
// pieces, and takes it if its checksum is right.
//
// A message that comes in the middle of a line ends with a newline of its own,
// so that the log has the line's beginning and the message on one line, maybe
// more messages, and the line's rest at the beginning of a later line:
//
//	TOTP abcdefgh 017 0f1e2d[   12.345678] a message of the kernel
//	[   12.345679] one more
//	3c QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlq
//
// Where the beginning ends is seen by the first character that cannot be part
// of it, or else follows from the length of the rest, since all lines of a
// block are equally long. The rest comes before the next line begins.
// Everything that fits is tried, even after a success: a beginning may fit the
// rest of more than one broken line.
func (d *decoder) splice(i, at int) {
	last := i
	for last < i+reach && last+1 < len(d.lines) && !begins(rests(d.lines[last+1], at)) {
		last++
	}
	for _, width := range []int{3, 4} {
		first := d.lines[i][at:]
		f := fit(first, width)
		for _, cut := range []int{f, f - 1} {
			if cut > 0 {
				d.extend(first[:cut], i+1, last, at, width, 2)
			}
		}
		for j := i + 1; j <= last; j++ {
			for _, rest := range rests(d.lines[j], at) {
				cut := lineLen(width) - len(rest)
				if cut > 0 && cut <= f && d.try() {
					d.take(first[:cut] + rest)
				}
			}
		}
	}
}

// extend looks for the pieces that follow head, in lines from to last.
func (d *decoder) extend(head string, from, last, at, width, piece int) {
	need := lineLen(width) - len(head)
	for j := from; j <= last; j++ {
		for _, rest := range rests(d.lines[j], at) {
			if !d.try() {
				return
			}
			if len(rest) >= need {
				d.take(head + rest)
			}
			if piece == maxPieces {
				continue
			}
			f := fit(head+rest, width) - len(head)
			for _, cut := range []int{f, f - 1} {
				if cut > 0 && cut < need {
					d.extend(head+rest[:cut], j+1, last, at, width, piece+1)
				}
			}
		}
	}
}

func begins(rests []string) bool {
	return slices.ContainsFunc(rests, func(s string) bool { return strings.HasPrefix(s, "TOTP ") })
}

// try counts an attempt and tells whether there may be one more.
func (d *decoder) try() bool {
	d.tries++
	return d.tries <= maxTries
}

// rests returns what of a line may belong to a broken one: all of it, or what
// follows a prefix, such as a time stamp, as long as the one before the
// broken line's beginning.
func rests(line string, at int) []string {
	if at > 0 && at < len(line) {
		return []string{line[at:], line}
	}
	return []string{line}
}

// mayBegin tells whether s, which is not a whole line, may begin with a
// piece of one: with "TOTP ", or with less of it and then the end, a time
// stamp or mark in brackets, or an indented message.
func mayBegin(s string) bool {
	if strings.HasPrefix(s, "TOTP ") {
		return true
	}
	n := fit(s, 3)
	return n > 0 && (n == len(s) || s[n] == '[' || strings.HasPrefix(s[n:], "  "))
}

// fit returns how many characters at the beginning of s are as they are in a
// numbered line with so many digits.
func fit(s string, width int) int {
	for i := range min(len(s), lineLen(width)) {
		if !fits(s[i], i, width) {
			return i
		}
	}
	return min(len(s), lineLen(width))
}

// fits tells whether c may be at position i of a numbered line.
func fits(c byte, i, width int) bool {
	digit := c >= '0' && c <= '9'
	lower := c >= 'a' && c <= 'z'
	switch {
	case i < 5:
		return c == "TOTP "[i]
	case i < 13:
		return lower || c >= '2' && c <= '7'
	case i == 13 || i == 14+width || i == 23+width:
		return c == ' '
	case i < 14+width:
		return digit
	case i < 23+width:
		return digit || c >= 'a' && c <= 'f'
	}
	return digit || lower || c >= 'A' && c <= 'Z' || c == '+' || c == '/'
}
