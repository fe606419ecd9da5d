// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page/pagetest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// TestPageFindsTheSame: in whatever people paste, the page finds the envelopes
// that totpctl open finds.
func TestPageFindsTheSame(t *testing.T) {
	node := pagetest.Start(t)
	inputs := []string{
		"", "text\n", string(sample(1)), "\r\n\t" + string(sample(1)), armored(1), armored(1)[:200], inBase64(1), inBase64(1)[:51], inBase64(1)[:50],
		"curl said: " + inBase64(1) + "\n" + inBase64(2) + "\n" + inBase64(1) + "\n" + inBase64(4), strings.ReplaceAll(inBase64(3), "A", "A\r\n"),
		onConsole(sampleID, "alice", 1), onConsole(sampleID, "alice", 1)[:900], onConsole(sampleID, "alice", 1) + onConsole(sampleID2, "bob", 2),
		onConsole(sampleID, "alice", 1) + armored(1) + armored(2), armored(1) + armored(1) + armored(2) + armored(1)[:100],
		armored(1)[:100] + armored(1)[:100], "> " + strings.ReplaceAll(armored(1), "\n", "\n> "), "| " + strings.ReplaceAll(armored(1), "\n", " \r\n| "),
		strings.ReplaceAll(armored(1), "\n", "\n    "), strings.ReplaceAll(armored(1), "\n", "\n\n"), strings.ReplaceAll(armored(1), "\n", "\u00a0\n\u00a0"),
		armorBegin, armorEnd, armorBegin + "\n" + armorBegin, armorBegin + "\n" + armorEnd, armorBegin + "\n!\n" + armorEnd + "\n" + armorBegin + "\n!\n" + armorEnd,
		strings.Replace(armored(1), "\n", "\nQUFB\n", 1), "\xef\xbb\xbf" + armored(1), "\xff\xfe", "\xff\xfea\x00", "\xfe\xff\x00a",
		"\xff\xfe" + strings.Join(strings.Split(armored(1), ""), "\x00") + "\x00",
		inJSON(armored(1)), inJSON(inJSON(armored(1))), "[" + inJSON(armored(1)) + ",\n" + inJSON(armored(2)) + "]", escaper.Replace(inJSON(armored(1))),
		inJSON(armored(1))[:300] + inJSON(armored(2)), "{\"password\":" + escaper.Replace(inJSON(inBase64(1)+inBase64(2))) + "}",
		strings.ReplaceAll(armored(1), "\n", "\u00a0 "), broken2(strings.ReplaceAll(armored(1), "\n", " ")+"\n", 100),
		stamped(armored(1)), strings.ReplaceAll(stamped(armored(1)), ": ", "\t"),
	}
	for _, d := range disguises() {
		inputs = append(inputs, d.make(armored(1)), d.make(onConsole(sampleID, "alice", 5)), d.make(inBase64(1)), d.make("x"+inBase64(2)+"\n"+inBase64(3)))
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
		for _, fault := range findsTheSame(t, node, []byte(input)) {
			faults[fault]++
		}
	}
	t.Logf("%d inputs, by fault: %v", len(inputs), faults)
	for _, fault := range []string{"", "cut off", "incomplete", "damaged"} {
		if faults[fault] == 0 {
			t.Errorf("none of the inputs has the fault %q", fault)
		}
	}
}

// FuzzPageFindsTheSame does so with the inputs of [FuzzFindEnvelopes].
func FuzzPageFindsTheSame(f *testing.F) {
	for _, seed := range findSeeds() {
		f.Add([]byte(seed))
	}
	node := pagetest.Start(f)
	f.Fuzz(func(t *testing.T, input []byte) { findsTheSame(t, node, input) })
}

// findsTheSame compares what the page and totpctl open find in an input. It returns what
// is wrong with each of the envelopes, in the page's words.
func findsTheSame(t *testing.T, node *pagetest.Node, input []byte) (faults []string) {
	t.Helper()
	want, got := findEnvelopes(asUTF8(input)), node.Find(t, input)
	if len(got) != len(want) {
		t.Errorf("the page finds %d envelopes, and totpctl %d, in %q", len(got), len(want), input)
		return nil
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
		faults = append(faults, fault)
		if g.Form != w.form || g.Line != w.line || g.ID != w.id || g.User != w.user || g.Fault != fault || !bytes.Equal(g.File, file) {
			t.Errorf("envelope %d: the page finds %.200v, and totpctl %s with %q: %v, in %q", i, g, w.name(), fault, err, input)
		}
	}
	return faults
}

// TestPageBelievesTheSame: of cards that contradict or replace each other, the
// page shows those that totpctl shows.
func TestPageBelievesTheSame(t *testing.T) {
	node := pagetest.Start(t)
	identity, recipient, err := seal.GenerateX25519()
	must(err)
	to, err := seal.ParseRecipient(recipient)
	must(err)
	ids, err := seal.ParseIdentities([]byte(identity), nil)
	must(err)

	first := newCard(cardSpec{user: "alice", host: "web-1", instance: "i-1", generation: 1})
	with := func(edit func(*card.Card)) card.Card {
		c := first
		c.HostKeys, c.BackupCodes = slices.Clone(first.HostKeys), slices.Clone(first.BackupCodes)
		edit(&c)
		return c
	}
	second := with(func(c *card.Card) { c.ID, c.Supersedes, c.Generation = sampleID, first.ID, 2 })
	cards := map[string]card.Card{
		"first":             first,
		"second":            second,
		"of the same ID":    with(func(c *card.Card) { c.HostKeys = nil }),
		"other codes":       with(func(c *card.Card) { c.BackupCodes = c.BackupCodes[1:] }),
		"same generation":   with(func(c *card.Card) { c.ID, c.Supersedes = sampleID2, first.ID }),
		"of other instance": with(func(c *card.Card) { c.ID, c.Supersedes, c.Generation, c.InstanceID = sampleID2, first.ID, 3, "i-2" }),
		"of other token": with(func(c *card.Card) {
			c.ID, c.Supersedes, c.Generation, c.Token = sampleID2, first.ID, 3, card.TokenMAC([]byte("x"), "alice")
		}),
		"of other user": with(func(c *card.Card) {
			c.ID, c.Supersedes, c.Generation, c.User = sampleID2, first.ID, 3, "mallory"
			c.OTPAuth = strings.Replace(c.OTPAuth, "alice", "mallory", 1)
		}),
	}
	sealedTo := func(text []byte, err error) string {
		must(err)
		file, err := seal.Seal(text, []seal.Recipient{to})
		must(err)
		text, err = seal.Armor(file)
		must(err)
		return string(text)
	}
	forms := make(map[string]string)
	for name, c := range cards {
		forms[name] = sealedTo(c.Text())
		forms[name+", compact"] = sealedTo(c.Compact())
	}
	forged, pairs := 0, 0
	for a, x := range forms {
		for b, y := range forms {
			if strings.HasSuffix(b, ", compact") {
				continue // what is first may be, which is enough
			}
			pairs++
			opened, _, failed := openAll(findEnvelopes([]byte(x+y)), ids, nil)
			kept, err := openOptions{}.choose(opened, failed)
			must(err)
			r := node.Open(t, []byte(x+y), identity)
			var want, got []string
			for _, c := range kept {
				want = append(want, c.ID+c.User+c.InstanceID+strings.Join(c.BackupCodes, ""))
			}
			for _, o := range r.Opened {
				codes := ""
				for _, code := range o.Card["backup_codes"].([]any) {
					codes += code.(string)
				}
				got = append(got, o.Card["id"].(string)+o.Card["user"].(string)+o.Card["instance_id"].(string)+codes)
			}
			if !slices.Equal(got, want) || r.Forged != (contradiction(kept) != nil) {
				t.Errorf("%s and %s: the page shows %q, forged %v, and totpctl %q, %v", a, b, got, r.Forged, want, contradiction(kept))
			}
			if r.Forged {
				forged++
			}
		}
	}
	if forged == 0 || forged == pairs {
		t.Errorf("%d of %d pairs are forged", forged, pairs)
	}
}
