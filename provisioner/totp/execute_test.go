// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"slices"
	"strings"
	"testing"
)

func TestProgress(t *testing.T) {
	long := strings.Repeat("x", maxLine+10)
	for _, tt := range []struct {
		name   string
		writes []string
		want   []string
		hidden string
	}{
		{"lines", []string{"a\nb\n"}, []string{"a", "b"}, ""},
		{"in pieces", []string{"a", "b\nc", "", "d\n"}, []string{"ab", "cd"}, ""},
		{"without an end", []string{"a\nb"}, []string{"a", "b"}, ""},
		{"blank lines", []string{"\n\n a\n"}, []string{" a"}, ""},
		{"rewritten line", []string{"10%\r20%\rdone\r\n"}, []string{"done"}, ""},
		{"terminal commands", []string{"\x1b[2Jred\x07\u009b31m\u202e\n"}, []string{"[2Jred31m"}, ""},
		{"not UTF-8", []string{"a\xffb\n"}, []string{"a?b"}, ""},
		{"tab", []string{"a\tb\n"}, []string{"a b"}, ""},
		{"long line", []string{long + "\nb\n"}, []string{long[:maxLine], "b"}, ""},
		{"mark", []string{"a\nmark=0\n"}, []string{"a"}, "mark=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ui := &recordingUI{}
			p := &progress{ui: ui, hide: "mark="}
			for _, w := range tt.writes {
				if n, err := p.Write([]byte(w)); n != len(w) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			p.flush()
			if !slices.Equal(p.tail, tt.want) || p.hidden != tt.hidden {
				t.Errorf("lines %q, hidden %q; want %q, %q", p.tail, p.hidden, tt.want, tt.hidden)
			}
			if len(ui.said) != len(tt.want) {
				t.Errorf("said %q", ui.said)
			}
		})
	}
}

func TestProgressKeepsTheLast(t *testing.T) {
	p := &progress{ui: &recordingUI{}}
	for i := range 100 {
		p.Write([]byte(strings.Repeat("x", i+1) + "\n"))
	}
	if len(p.tail) != maxTail || len(p.tail[maxTail-1]) != 100 {
		t.Errorf("kept %d lines, the last of %d bytes", len(p.tail), len(p.tail[len(p.tail)-1]))
	}
}

func TestCapped(t *testing.T) {
	c := capped{limit: 4}
	for _, s := range []string{"abc", "", "d", "e"} {
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
		if want := s == "e"; c.over != want {
			t.Errorf("after %q over is %v", s, c.over)
		}
	}
	if c.String() != "abcd" {
		t.Errorf("kept %q", c.String())
	}
}
