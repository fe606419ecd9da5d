// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package console

import (
	"encoding/binary"
	"regexp"
	"strings"
	"sync"
	"unicode/utf16"
)

// clean returns a log as lines of printable ASCII that end with "\n".
//
// A carriage return that ends no line is one that began a line over, as the
// status messages of systemd do: it separates like a newline. Escape sequences
// (ECMA-48) and everything else that is not printable vanish.
func clean(log []byte) string {
	s := decodeUTF16(log)
	if strings.Contains(s, "\x1b") {
		s = escapes().ReplaceAllString(s, "")
	}
	var out strings.Builder
	out.Grow(len(s))
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n' || c == '\r':
			out.WriteByte('\n')
		case c >= ' ' && c <= '~':
			out.WriteByte(c)
		}
	}
	return out.String()
}

var escapes = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(
		"\x1b\\[[0-?]*[ -/]*[@-~]" + // CSI: colours, cursor, erase
			"|\x1b[\\]PX^_][^\x07\x1b\r\n]*(?:\x07|\x1b\\\\)" + // OSC and other strings
			"|\x1b[ -/]*[0-~]") // two-character sequences
})

// decodeUTF16 reads a log that PowerShell has redirected to a file.
func decodeUTF16(log []byte) string {
	if len(log) < 2 {
		return string(log)
	}
	var order binary.ByteOrder
	switch {
	case log[0] == 0xff && log[1] == 0xfe:
		order = binary.LittleEndian
	case log[0] == 0xfe && log[1] == 0xff:
		order = binary.BigEndian
	default:
		return string(log)
	}
	units := make([]uint16, 0, len(log)/2)
	for i := 2; i+1 < len(log); i += 2 {
		units = append(units, order.Uint16(log[i:]))
	}
	return string(utf16.Decode(units))
}
