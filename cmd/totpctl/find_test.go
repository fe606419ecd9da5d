// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"mime/quotedprintable"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const (
	sampleID  = "abcdefghijklmnopqrstuvwxyz"
	sampleID2 = "zbcdefghijklmnopqrstuvwxyz"
)

// sample is an age file as far as can be told without its key.
func sample(n int) []byte {
	// Every third has a base64 without "=" at its end.
	return append([]byte(binaryIntro+"\n-> X25519 aaaa\n"), bytes.Repeat([]byte{byte(n), 0xff, '\n', 0}, 100+n%3)...)
}

func armored(n int) string {
	text, err := seal.Armor(sample(n))
	must(err)
	return string(text)
}

func onConsole(id, user string, n int) string {
	text, err := console.Encode(id, user, sample(n))
	must(err)
	return string(text)
}

func inBase64(n int) string {
	return base64.StdEncoding.EncodeToString(sample(n))
}

// stamped is a text as a log has it, with another time in each line.
func stamped(text string) string {
	var b strings.Builder
	n := 0
	for line := range strings.Lines(text) {
		fmt.Fprintf(&b, "Nov 28 19:00:%02d host app[7]: %s", n, line)
		n++
	}
	return b.String()
}

// inJSON is a text as a string of JSON.
func inJSON(text string) string {
	out, err := json.Marshal(text)
	must(err)
	return string(out)
}

// escaper escapes more than JSON asks for: "/" as PHP does, "+" and "=" as .NET.
var escaper = strings.NewReplacer("/", `\/`, "+", `\u002B`, "=", `\u003d`)

// broken2 breaks lines that are longer than n columns in two.
func broken2(text string, n int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if len(line) > n+1 {
			b.WriteString(line[:n] + "\n")
			line = line[n:]
		}
		b.WriteString(line)
	}
	return b.String()
}

// puttyWindow is a banner as it is copied from a window of PuTTY with so many
// columns.
func puttyWindow(banner string, columns int) string {
	text := "-- Pre-authentication banner message from server: --\n"
	for line := range strings.Lines(banner) {
		text += "| " + line
	}
	return strings.ReplaceAll(broken2(text+"-- End of banner message from server --\n", columns), "\n", "\r\n")
}

func TestFindEnvelopes(t *testing.T) {
	// want is what each finding holds: the sample's number, or a fault.
	type want struct {
		form   string
		line   int
		sample int
		fault  error
	}
	broken := strings.ReplaceAll(onConsole(sampleID, "alice", 1), " 004 ", " xxx ")
	for _, tt := range []struct {
		name  string
		input string
		want  []want
	}{
		{"nothing", "", nil},
		{"text", "no envelope in here\n", nil},
		{"binary", string(sample(1)), []want{{"age file", 0, 1, nil}}},
		{"binary after blanks", "\r\n " + string(sample(1)), []want{{"age file", 0, 1, nil}}},
		{"binary after text", "x" + string(sample(1)), nil},
		{"armored", armored(1), []want{{"armored", 1, 1, nil}}},
		{"armored amid text", "hello\n\n" + armored(1) + "bye\n", []want{{"armored", 3, 1, nil}}},
		{"armored, no newline at the end", strings.TrimSuffix(armored(1), "\n"), []want{{"armored", 1, 1, nil}}},
		{"armored, CRLF", strings.ReplaceAll(armored(1), "\n", "\r\n"), []want{{"armored", 1, 1, nil}}},
		{"armored, quoted", "> " + strings.ReplaceAll(armored(1), "\n", "\n> "), []want{{"armored", 1, 1, nil}}},
		{"armored, logged", "host app: " + strings.ReplaceAll(armored(1), "\n", "\nhost app: "), []want{{"armored", 1, 1, nil}}},
		{"armored, logged over some time", stamped(armored(1)), []want{{"armored", 1, 1, nil}}},
		{"armored, as PuTTY shows a banner", puttyWindow(armored(1), 80), []want{{"armored", 2, 1, nil}}},
		{"armored, in a narrow window of PuTTY", puttyWindow(armored(1), 50), []want{{"armored", 3, 1, nil}}},
		{"armored, in a window of PuTTY, with blanks at the ends", strings.ReplaceAll(puttyWindow(armored(1), 66), "\r\n", "   \r\n"), []want{{"armored", 2, 1, nil}}},
		{"armored, lines broken by a mail", strings.ReplaceAll(broken2(armored(1), 40), "\n", "\r\n"), []want{{"armored", 1, 1, nil}}},
		{"armored, in JSON", "{\n" + inJSON(armored(1)) + "}\n", []want{{"armored", 2, 1, nil}}},
		{"armored, in JSON in JSON", inJSON(inJSON(armored(1))), []want{{"armored", 1, 1, nil}}},
		{"armored, in JSON with CRLF", inJSON(strings.ReplaceAll(armored(1), "\n", "\r\n")), []want{{"armored", 1, 1, nil}}},
		{"armored, in JSON as PHP and .NET write it", escaper.Replace(inJSON(armored(1))), []want{{"armored", 1, 1, nil}}},
		{"armored, two in JSON", "[" + inJSON(armored(1)) + "," + inJSON(armored(2)) + "]", []want{{"armored", 1, 1, nil}, {"armored", 1, 2, nil}}},
		{"armored, in JSON, cut off", inJSON(armored(1))[:300], []want{{"armored", 1, 0, errCutOff}}},
		{"armored, in JSON, cut off by another", inJSON(armored(1))[:300] + inJSON(armored(2)), []want{{"armored", 1, 0, errCutOff}, {"armored", 1, 2, nil}}},
		{"armored, on one line", strings.ReplaceAll(armored(1), "\n", " "), []want{{"armored", 1, 1, nil}}},
		{"armored, on one line without blanks", strings.ReplaceAll(armored(1), "\n", ""), []want{{"armored", 1, 1, nil}}},
		{"armored, filled anew", broken2(strings.ReplaceAll(armored(1), "\n", " ")+"\n", 100), []want{{"armored", 1, 1, nil}}},
		{"a mark in a sentence", "it begins with " + armorBegin + " and so on\n" + armored(1), []want{{"armored", 2, 1, nil}}},
		{"two armored", armored(1) + armored(2), []want{{"armored", 1, 1, nil}, {"armored", 13, 2, nil}}},
		{"the same twice", armored(1) + armored(1), []want{{"armored", 1, 1, nil}}},
		{"armored, cut off", armored(1)[:200], []want{{"armored", 1, 0, errCutOff}}},
		{"armored, cut off by another", armored(1)[:200] + "\n" + armored(2), []want{{"armored", 1, 0, errCutOff}, {"armored", 5, 2, nil}}},
		{"end without begin", armored(1)[40:], nil},
		{"console", onConsole(sampleID, "alice", 1), []want{{"console block", 0, 1, nil}}},
		{"console, two", onConsole(sampleID, "alice", 1) + onConsole(sampleID2, "bob", 2), []want{{"console block", 0, 1, nil}, {"console block", 0, 2, nil}}},
		{"console, incomplete", broken, []want{{"console block", 0, 0, errIncomplete}}},
		{"console and armored", armored(2) + onConsole(sampleID, "alice", 1), []want{{"console block", 0, 1, nil}, {"armored", 1, 2, nil}}},
		{"the same in both", armored(1) + onConsole(sampleID, "alice", 1), []want{{"console block", 0, 1, nil}}},
		{"base64", inBase64(1), []want{{"base64", 1, 1, nil}}},
		{"base64, in JSON", "{\n\"password\":\"" + inBase64(1) + "\"}", []want{{"base64", 2, 1, nil}}},
		{"base64, in JSON as PHP and .NET write it", escaper.Replace("{\"password\":\"" + inBase64(1) + "\"}"), []want{{"base64", 1, 1, nil}}},
		{"base64, wrapped", inBase64(1)[:76] + "\r\n" + inBase64(1)[76:] + "\n", []want{{"base64", 1, 1, nil}}},
		{"base64, two", inBase64(1) + " " + inBase64(2), []want{{"base64", 1, 1, nil}, {"base64", 1, 2, nil}}},
		{"base64, two on lines of their own", inBase64(1) + "\n" + inBase64(4) + "\n", []want{{"base64", 1, 1, nil}, {"base64", 2, 4, nil}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := findEnvelopes([]byte(tt.input))
			if len(found) != len(tt.want) {
				t.Fatalf("found %d, want %d: %v", len(found), len(tt.want), listFindings(found))
			}
			for i, w := range tt.want {
				f := found[i]
				if f.form != w.form || f.line != w.line || !errors.Is(f.fault, w.fault) {
					t.Errorf("#%d is %s in line %d with fault %v, want %s in line %d with fault %v", i, f.form, f.line, f.fault, w.form, w.line, w.fault)
				}
				if w.fault != nil {
					continue
				}
				if got, err := seal.Dearmor(f.sealed); err != nil || !bytes.Equal(got, sample(w.sample)) {
					t.Errorf("#%d is another envelope: %v", i, err)
				}
			}
		})
	}
}

func TestFindEnvelopesNamesBlocks(t *testing.T) {
	found := findEnvelopes([]byte(onConsole(sampleID, "alice", 1)))
	if len(found) != 1 || found[0].id != sampleID || found[0].user != "alice" {
		t.Errorf("found %v", listFindings(found))
	}
}

func TestRanges(t *testing.T) {
	for _, tt := range []struct {
		numbers []int
		want    string
	}{
		{nil, ""},
		{[]int{3}, "3"},
		{[]int{3, 4}, "3-4"},
		{[]int{1, 3, 5}, "1, 3 and 5"},
		{[]int{1, 2, 3, 7, 9, 10}, "1-3, 7 and 9-10"},
	} {
		if got := ranges(tt.numbers); got != tt.want {
			t.Errorf("ranges(%v) is %q, want %q", tt.numbers, got, tt.want)
		}
	}
}

// wrapped breaks a text into lines of n characters.
func wrapped(text string, n int) string {
	var b strings.Builder
	for ; len(text) > n; text = text[n:] {
		b.WriteString(text[:n] + "\n")
	}
	return b.String() + text + "\n"
}

// quotedPrintable is a text in lines of 76 characters, as mail programs write it.
func quotedPrintable(text string) string {
	var b bytes.Buffer
	w := quotedprintable.NewWriter(&b)
	_, err := w.Write([]byte(strings.ReplaceAll(text, "\n", "\r\n")))
	must(errors.Join(err, w.Close()))
	return b.String()
}

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// A disguise is what a program makes of the text of an envelope or of a log.
type disguise struct {
	name string
	make func(text string) string
}

// disguises keep what an envelope in any form consists of.
func disguises() []disguise {
	blankEnds := func(blank string) func(string) string {
		return func(text string) string { return strings.ReplaceAll(text, "\n", blank+"\n") }
	}
	inside := func(s string) func(string) string {
		return func(text string) string { return strings.ReplaceAll(text, "T", "T"+s) }
	}
	numeric := strings.NewReplacer("/", "&#47;", "+", "&#43;", "=", "&#61;", " ", "&#160;")
	hexadecimal := strings.NewReplacer("/", "&#x2F;", "+", "&#x2b;", "=", "&#X3D;", "\n", "&#xa;")
	named := strings.NewReplacer("/", "&sol;", "+", "&plus;", "=", "&equals;", " ", "&nbsp;", "\n", "&NewLine;")
	all := strings.NewReplacer("/", `\/`, "+", `\u002B`, "=", `\u003d`, " ", `\u00a0`, "-", `\u002d`)
	list := []disguise{
		{"JSON", inJSON},
		{"JSON with more escapes", func(text string) string { return all.Replace(inJSON(text)) }},
		{"JSON in JSON with more escapes", func(text string) string { return inJSON(all.Replace(inJSON(text))) }},
		{"JSON of HTML", func(text string) string { return inJSON(strings.ReplaceAll(text, "\n", "<br>\n")) }},
		{"JSON with CRLF", func(text string) string { return inJSON(strings.ReplaceAll(text, "\n", "\r\n")) }},
		{"escapes as in Python", func(text string) string {
			return "b'" + strings.NewReplacer("\n", `\n`, "+", `\x2b`).Replace(text) + "'"
		}},
		{"numeric entities", numeric.Replace},
		{"hexadecimal entities", hexadecimal.Replace},
		{"named entities", named.Replace},
		{"entities twice", func(text string) string { return html.EscapeString(numeric.Replace(text)) }},
		{"br", blankEnds("<br>")},
		{"br of XHTML", blankEnds("<br />")},
		{"br without line ends", func(text string) string { return strings.ReplaceAll(text, "\n", "<BR/>") }},
		{"escaped br", blankEnds("&lt;br&gt;")},
		{"paragraphs", func(text string) string {
			return "<p>" + strings.ReplaceAll(text, "\n", "</p>\n<p class=\"x\">") + "</p>"
		}},
		{"table rows", func(text string) string {
			return "<tr><td>" + strings.ReplaceAll(text, "\n", "</td></tr><tr><td>") + "</td></tr>"
		}},
		{"highlighted", func(text string) string {
			return "<pre>" + strings.ReplaceAll(text, "\n", "</span>\n<span style=\"color: red\">") + "</pre>"
		}},
		{"quoted-printable", quotedPrintable},
		{"quoted-printable of HTML", func(text string) string { return quotedPrintable(numeric.Replace(blankEnds("<br>")(text))) }},
	}
	for _, blank := range []string{"\u00a0", "\u2003", "\u202f", "\u3000", "\u200b", "\ufeff", "\xa0"} {
		list = append(list, disguise{fmt.Sprintf("%q at line ends", blank), blankEnds(blank)})
	}
	for _, none := range []string{"\u200b", "\u200c", "\u2060", "\ufeff", "\u00ad", "&shy;", "<wbr>", "<b></b>"} {
		if none == "&shy;" {
			none = "&#173;"
		}
		list = append(list, disguise{fmt.Sprintf("%q inside", none), inside(none)})
	}
	for _, n := range []int{64, 76} {
		list = append(list, disguise{fmt.Sprintf("base64, wrapped at %d", n), func(text string) string { return wrapped(base64Of(text), n) }})
	}
	return append(list,
		disguise{"base64 in an API's answer", func(text string) string { return `{"InstanceId":"i-0","Output":"` + base64Of(text) + `"}` }},
		disguise{"base64 in JSON with more escapes", func(text string) string { return all.Replace(`{"buf-b64":"` + base64Of(text) + `"}`) }},
		disguise{"base64 of base64", func(text string) string { return base64Of(base64Of(text)) }},
		disguise{"base64 of JSON of base64", func(text string) string { return base64Of(`{"content":"` + base64Of(text) + `"}`) }},
		disguise{"base64 without =, in YAML", func(text string) string {
			return "content: " + strings.TrimRight(base64Of(text), "=") + "\nencoding: base64\n"
		}},
		disguise{"base64, indented in YAML", func(text string) string {
			return "content: |\n  " + strings.ReplaceAll(wrapped(base64Of(text), 76), "\n", "\n  ") + "\nencoding: base64\n"
		}},
		disguise{"base64, quoted-printable", func(text string) string { return quotedPrintable(base64Of(text)) }},
	)
}

// TestFindDisguised: each form of an envelope is found in whatever programs make of text.
func TestFindDisguised(t *testing.T) {
	for _, d := range disguises() {
		for _, form := range []struct{ name, text string }{
			{"armored", armored(1)}, {"armored, amid text", "hello\n" + armored(2) + "bye\n"}, {"armored, without the last newline", strings.TrimSpace(armored(4))},
			{"console", "login: \n" + onConsole(sampleID, "alice", 5) + "\n" + onConsole(sampleID2, "bob", 6)},
		} {
			t.Run(d.name+"/"+form.name, func(t *testing.T) {
				want := whole(findEnvelopes([]byte(form.text)))
				if got := whole(findEnvelopes([]byte(d.make(form.text)))); len(want) == 0 || !slices.Equal(got, want) {
					t.Errorf("found %d of %d in %.300q", len(got), len(want), d.make(form.text))
				}
			})
		}
	}
}

// whole returns the age files of the findings, and an empty text for each that has none.
func whole(found []finding) []string {
	var files []string
	for _, f := range found {
		if f.whole() {
			files = append(files, string(f.file()))
		} else {
			files = append(files, "")
		}
	}
	return files
}

// Bare base64 is found also where a program broke it, and where text follows it.
func TestFindDisguisedBase64(t *testing.T) {
	for _, input := range []string{
		quotedPrintable(inBase64(1)), strings.ReplaceAll(inBase64(1), "A", "A\u200b"), "<b>" + inBase64(1) + "</b><br>text",
		base64Of("{\"password\":\"" + inBase64(1) + "\"}"), strings.ReplaceAll(wrapped(inBase64(1), 60), "\n", "<br>\n"),
	} {
		found := findEnvelopes([]byte(input))
		if !slices.ContainsFunc(found, func(f finding) bool { return bytes.Equal(f.sealed, sample(1)) }) {
			t.Errorf("not found, but %v, in %.200q", listFindings(found), input)
		}
	}
}

// findSeeds returns inputs of each form that an envelope can have, whole and cut off.
func findSeeds() []string {
	seeds := []string{
		"", "text\n", "age1abc", string(sample(1)), armored(1), armored(1)[:200], inBase64(1), inBase64(1)[:50],
		onConsole(sampleID, "alice", 1), onConsole(sampleID, "alice", 1)[:900],
		"> " + armorBegin, armorBegin + "\n" + armorBegin, armorEnd, "\xff\xfe", "\xff\xfea\x00", "\xef\xbb\xbf" + armored(1),
		strings.ReplaceAll(armored(1), "\n", "\r\n"), puttyWindow(armored(1), 50),
		inJSON(armored(1)), inJSON(armored(1))[:200], escaper.Replace(inJSON(inBase64(1))),
	}
	for _, d := range disguises() {
		seeds = append(seeds, d.make(armored(1)))
	}
	return seeds
}

// FuzzFindEnvelopes looks for envelopes in whatever people paste. What is in
// there must not matter to one that stands whole on lines of its own.
func FuzzFindEnvelopes(f *testing.F) {
	for _, seed := range findSeeds() {
		f.Add([]byte(seed))
	}
	whole := armored(200)
	f.Fuzz(func(t *testing.T, input []byte) {
		for _, fi := range findEnvelopes(asUTF8(input)) {
			if fi.fault == nil && len(fi.sealed) == 0 {
				t.Errorf("an envelope without content: %s", fi.name())
			}
			if name := fi.name(); strings.ContainsFunc(name, func(r rune) bool { return r < ' ' }) {
				t.Errorf("control characters in %q", name)
			}
			openAll([]finding{fi}, nil, nil)
		}
		if bytes.HasPrefix(bytes.TrimLeft(input, " \t\r\n"), []byte(binaryIntro)) {
			return // a binary age file goes on to its end
		}
		found := findEnvelopes(slices.Concat(input, []byte("\n"+whole)))
		if !slices.ContainsFunc(found, func(fi finding) bool {
			file, err := seal.Dearmor(fi.sealed)
			return fi.fault == nil && err == nil && bytes.Equal(file, sample(200))
		}) {
			t.Errorf("the envelope at the end was not found, but %v", listFindings(found))
		}
	})
}
