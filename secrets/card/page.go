// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"strings"
	"unicode/utf8"
)

const (
	columns = 80
	indent  = "  "
	label   = 11 // columns of the name of a row, blank included
)

// These choose black and white by number from the 256 colours, since terminals
// give the first 16 any shade their theme has.
const (
	sgrBlackOnWhite = "\x1b[38;5;16;48;5;231m"
	sgrReset        = "\x1b[0m"
)

// PageOptions say how a page is shown.
type PageOptions struct {
	// Color draws the QR code black on white by SGR escape sequences
	// (ECMA-48), so that it scans on a terminal of any colours. Without it
	// the page is plain text, and its QR code needs light text on a dark
	// background, as the page says.
	Color bool
}

// Page returns the card for a terminal, without the line for programs. No line
// is wider than 80 columns. The error is a [*FieldError].
func (c Card) Page(opt PageOptions) (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	if opt.Color {
		return c.page(colour)
	}
	return c.page(plain)
}

func (c Card) page(m medium) (string, error) {
	qr, err := QRHalfBlocks(c.OTPAuth, quietZone, m == colour)
	if err != nil {
		return "", err
	}
	p := pageWriter{}
	for i, s := range c.content(m) {
		rule := "-"
		if i == 0 {
			rule = "="
		} else {
			p.line("")
		}
		p.chunks("", s.title)
		p.line(strings.Repeat(rule, min(utf8.RuneCountInString(s.title), columns-2)))
		for _, part := range s.parts {
			p.line("")
			switch {
			case part.qr && m == colour:
				for _, l := range qr {
					p.line(sgrBlackOnWhite + l + sgrReset)
				}
			case part.qr:
				for _, l := range qr {
					p.line(l)
				}
			case part.para != "":
				p.wrap(part.para)
			case part.rows != nil:
				for _, r := range part.rows {
					p.row(r[0], r[1])
				}
			default:
				for _, l := range part.lines {
					p.chunks(indent, l)
				}
			}
		}
	}
	return p.String(), nil
}

// A pageWriter writes lines no wider than the page.
type pageWriter struct{ strings.Builder }

func (p *pageWriter) line(s string) {
	p.WriteString(s)
	p.WriteByte('\n')
}

// wrap writes a paragraph of ASCII words.
func (p *pageWriter) wrap(s string) {
	n := 0
	for w := range strings.FieldsSeq(s) {
		switch {
		case n == 0:
		case n+1+len(w) > columns-2:
			p.WriteByte('\n')
			n = 0
		default:
			p.WriteByte(' ')
			n++
		}
		p.WriteString(w)
		n += len(w)
	}
	p.WriteByte('\n')
}

// row writes a name and its value; a value that is too long goes on below
// itself. Empty values are left out.
func (p *pageWriter) row(name, value string) {
	prefix := indent + name + strings.Repeat(" ", label-len(name))
	for value != "" {
		var head string
		head, value = cut(value, columns-2-len(prefix))
		p.line(prefix + head)
		prefix = strings.Repeat(" ", len(prefix))
	}
}

// chunks writes something to be copied, cut where the line is full.
func (p *pageWriter) chunks(prefix, s string) {
	for s != "" {
		var head string
		head, s = cut(s, columns-2-len(prefix))
		p.line(prefix + head)
	}
}

// cut parts s after so many columns. A character beyond Latin counts as two,
// which is the widest one can be.
func cut(s string, width int) (head, rest string) {
	n := 0
	for i, r := range s {
		n++
		if r >= 0x1100 {
			n++
		}
		if n > width {
			return s[:i], s[i:]
		}
	}
	return s, ""
}
