// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package templates

import (
	"errors"
	"testing"
)

func TestFill(t *testing.T) {
	values := map[string]string{"A": "a", "Lines": "x\ny\n", "None": "", "Place": "{{A}}"}
	for _, tt := range []struct {
		text, want string
		err        error
	}{
		{"", "", nil},
		{"plain } { $x ${x}\n", "plain } { $x ${x}\n", nil},
		{"{{A}} and {{A}}{{A}}", "a and aa", nil},
		{"before\n{{Lines}}\nafter\n", "before\nx\ny\nafter\n", nil},
		{"before\n{{None}}\nafter\n", "before\nafter\n", nil},
		{"before\n {{None}}\nafter\n", "before\n \nafter\n", nil},
		{"{{A}}{{A}}\nafter", "aa\nafter", nil},
		{"{{Place}} once", "{{A}} once", nil},
		{"{{B}}\n", "", ErrNoValue},
		{"{{ A }}\n", "", ErrNoValue},
		{"{{.A}}\n", "", ErrNoValue},
		{"{{}}\n", "", ErrNoValue},
		{"{{A\n}}\n", "", ErrOpen},
		{"{{", "", ErrOpen},
	} {
		if got, err := fill(tt.text, values); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %q, %v; want %q, %v", tt.text, got, err, tt.want, tt.err)
		}
	}
}
