// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page/pagetest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// TestPageFindsTheSame: in whatever people paste, the page finds the envelopes
// that totpctl open finds.
func TestPageFindsTheSame(t *testing.T) {
	node := pagetest.Start(t)
	inputs := []string{
		"", "text\n", string(sample(1)), "\r\n\t" + string(sample(1)), armored(1), armored(1)[:200], inBase64(1), inBase64(1)[:51], inBase64(1)[:50],
		"curl said: " + inBase64(1) + "\n" + inBase64(2) + "\n" + inBase64(1), strings.ReplaceAll(inBase64(3), "A", "A\r\n"),
		onConsole(sampleID, "alice", 1), onConsole(sampleID, "alice", 1)[:900], onConsole(sampleID, "alice", 1) + onConsole(sampleID2, "bob", 2),
		onConsole(sampleID, "alice", 1) + armored(1) + armored(2), armored(1) + armored(1) + armored(2) + armored(1)[:100],
		armored(1)[:100] + armored(1)[:100], "> " + strings.ReplaceAll(armored(1), "\n", "\n> "), "| " + strings.ReplaceAll(armored(1), "\n", " \r\n| "),
		strings.ReplaceAll(armored(1), "\n", "\n    "), strings.ReplaceAll(armored(1), "\n", "\n\n"), strings.ReplaceAll(armored(1), "\n", "\u00a0\n\u00a0"),
		armorBegin, armorEnd, armorBegin + "\n" + armorBegin, armorBegin + "\n" + armorEnd, armorBegin + "\n!\n" + armorEnd + "\n" + armorBegin + "\n!\n" + armorEnd,
		strings.Replace(armored(1), "\n", "\nQUFB\n", 1), "\xef\xbb\xbf" + armored(1), "\xff\xfe", "\xff\xfea\x00", "\xfe\xff\x00a",
		"\xff\xfe" + strings.Join(strings.Split(armored(1), ""), "\x00") + "\x00",
	}
	r := rand.New(rand.NewPCG(1, 2))
	for _, input := range inputs {
		for range 12 { // damaged in one place
			if len(input) < 60 {
				break
			}
			i, j := r.IntN(len(input)), r.IntN(len(input))
			switch r.IntN(4) {
			case 0:
				inputs = append(inputs, input[:i]+input[i+1:])
			case 1:
				inputs = append(inputs, input[:i]+string(rune(r.IntN(256)))+input[i:])
			case 2:
				inputs = append(inputs, input[:i]+input[max(i, j):])
			case 3:
				inputs = append(inputs, input[:i]+input[j:])
			}
		}
	}
	faults := make(map[string]int)
	for _, input := range inputs {
		want := findEnvelopes(asUTF8([]byte(input)))
		got := node.Find(t, []byte(input))
		if len(got) != len(want) {
			t.Errorf("the page finds %d envelopes, and totpctl %d, in %q", len(got), len(want), input)
			continue
		}
		for i, w := range want {
			g := got[i]
			fault, file := "", w.sealed
			var err error
			switch {
			case errors.Is(w.fault, errCutOff):
				fault, file = "cut off", nil
			case errors.Is(w.fault, errIncomplete):
				fault = "incomplete"
			case w.form == "armored":
				if file, err = seal.Dearmor(w.sealed); err != nil {
					fault, file = "damaged", nil
				}
			}
			faults[fault]++
			if g.Form != w.form || g.Line != w.line || g.ID != w.id || g.User != w.user || g.Fault != fault || !bytes.Equal(g.File, file) {
				t.Errorf("envelope %d: the page finds %.200v, and totpctl %s with %q: %v, in %q", i, g, w.name(), fault, err, input)
			}
		}
	}
	t.Logf("%d inputs, by fault: %v", len(inputs), faults)
	for _, fault := range []string{"", "cut off", "incomplete", "damaged"} {
		if faults[fault] == 0 {
			t.Errorf("none of the inputs has the fault %q", fault)
		}
	}
}
