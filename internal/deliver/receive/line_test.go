// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// script is a reader that returns one piece at a time; "!" stands for a
// deadline that is exceeded.
type script []string

func (s *script) Read(b []byte) (int, error) {
	if len(*s) == 0 {
		return 0, io.EOF
	}
	piece := (*s)[0]
	*s = (*s)[1:]
	if piece == "!" {
		return 0, os.ErrDeadlineExceeded
	}
	return copy(b, piece), nil
}

func TestLineReader(t *testing.T) {
	long := strings.Repeat("x", frame.MaxLine)
	for _, tt := range []struct {
		name string
		in   script
		want []string // lines, "long" or "late"
	}{
		{"lines", script{"a\nb\n", "\n", "c", "d\n"}, []string{"a\n", "b\n", "\n", "cd\n"}},
		{"end", script{"a\nb"}, []string{"a\n"}},
		{"just short enough", script{long + "\n"}, []string{long + "\n"}},
		{"too long", script{long + "x\nb\n"}, []string{"long", "b\n"}},
		{"too long, in pieces", script{long + "xx", "TOTP-ENVELOPE \nb\n"}, []string{"long", "b\n"}},
		{"late", script{"a", "!", "b\n"}, []string{"late", "b\n"}},
		{"late in a long line", script{long + "xx", "!", "b\n"}, []string{"late", "b\n"}},
		{"late between", script{"a\n", "!", "b\n"}, []string{"a\n", "late", "b\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := lineReader{r: &tt.in}
			for i := 0; ; i++ {
				line, err := l.next()
				got := string(line)
				switch {
				case err == io.EOF:
					if i != len(tt.want) {
						t.Errorf("ended after %d lines", i)
					}
					return
				case errors.Is(err, errLong):
					got = "long"
				case errors.Is(err, os.ErrDeadlineExceeded):
					got = "late"
				}
				if i >= len(tt.want) || got != tt.want[i] {
					t.Fatalf("line %d: %q", i, got)
				}
			}
		})
	}
}
