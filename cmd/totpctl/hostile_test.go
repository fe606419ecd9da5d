// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// A log that a stranger could write into costs neither memory nor time beyond its
// size: the findings in it are few, whatever it repeats.
func TestHostileInput(t *testing.T) {
	const size = 4 << 20
	numbered := func(format string) []byte {
		var b bytes.Buffer
		for i := 0; b.Len() < size; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.Bytes()
	}
	header := "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+IFgyNTUxOSBh" // an age file begins so, in base64
	for _, tt := range []struct {
		name, repeated string
		most           int // findings
	}{
		{"first lines", armorBegin + " %d\n", 0},
		{"first lines alone", armorBegin + "\n", maxFaults + 1},
		{"blocks that are not age files", armorBegin + "\nAAA%08d\n" + armorEnd + "\n", maxFaults + 1},
		{"the same block", armorBegin + "\nAAAA\n" + armorEnd + "\n", 1},
		{"blocks that begin as age files", armorBegin + "\n" + header + "%08d\n" + armorEnd + "\n", maxFound + 1},
		{"first lines that run on", armorBegin + base64Intro, maxFaults + 1},
		{"run-on blocks", armorBegin + base64Intro + "%08d" + armorEnd, maxFound + 1},
		{"base64", "YWdlLWVuY3J5cHRpb24ub3JnL3YxCi0+ %08d\n", 1},
		{"different base64", header + "%08d\n", maxFound + 1},
		{"marks on a console", "-----BEGIN TOTP ENVELOPE aaaaaaa2 alice %d-----\n", 1},
		{"numbered lines", "TOTP aaaaaaaa %03d ", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			input := bytes.Repeat([]byte(tt.repeated), size/len(tt.repeated))
			if bytes.Contains(input, []byte("%")) {
				input = numbered(tt.repeated)
			}
			found := findEnvelopes(input)
			if len(found) > tt.most {
				t.Fatalf("%d findings, want %d at most", len(found), tt.most)
			}
			if n := len(found); n > 1 && !errors.Is(found[n-1].fault, errTooMany) {
				t.Errorf("the last finding of %d does not say that others were left out: %v", n, found[n-1].fault)
			}
		})
	}
}

// An envelope that is far too long to be one is named, and does not hide the next.
func TestTooLongArmor(t *testing.T) {
	long := armorBegin + "\n" + string(bytes.Repeat([]byte("QUFB\n"), maxSealed/4)) + armorEnd + "\n"
	found := findEnvelopes([]byte(long + armored(1)))
	if len(found) != 2 || !errors.Is(found[0].fault, errLong) || found[1].fault != nil {
		t.Errorf("got %d findings", len(found))
	}
}
