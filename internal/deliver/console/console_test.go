// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package console

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

var update = flag.Bool("update", false, "write the golden files")

const (
	aliceID = "abcdefgh234567ijklmnopqrsu"
	bobID   = "zyxwvuts765432rqponmlkjihg"
)

// sealed returns n bytes that look as random as a sealed envelope.
func sealed(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := []byte("age-encryption.org/v1\n")
	for len(b) < n {
		b = append(b, byte(r.Uint32()))
	}
	return b[:n]
}

func encode(t testing.TB, id, user string, sealed []byte) string {
	t.Helper()
	b, err := Encode(id, user, sealed)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// oneCopy returns the first of the two copies, so that nothing but the
// repair of lines can bring an envelope back.
func oneCopy(t testing.TB, text string) string {
	t.Helper()
	half := text[:len(text)/2]
	if half+half != text {
		t.Fatal("the block is not two equal copies")
	}
	return half
}

// check decodes a log that must hold one envelope, whole.
func check(t *testing.T, log string, id, user string, want []byte) {
	t.Helper()
	found := Decode([]byte(log))
	if len(found) != 1 {
		t.Fatalf("found %d envelopes in:\n%s", len(found), log)
	}
	f := found[0]
	if !f.Complete || f.ID != id || f.User != user || !bytes.Equal(f.Sealed, want) || len(f.Missing) != 0 {
		t.Fatalf("complete %v, id %q, user %q, missing %v, sealed equal %v in:\n%s",
			f.Complete, f.ID, f.User, f.Missing, bytes.Equal(f.Sealed, want), log)
	}
}

func TestRoundTrip(t *testing.T) {
	user := "a234567890123456789012345678901_"
	for _, n := range []int{1, 35, 36, 37, 700, 3000, 36 * 999, MaxSealed} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			want := sealed(1, n)
			text := encode(t, aliceID, user, want)
			for line := range strings.Lines(text) {
				if len(strings.TrimSuffix(line, "\n")) > 79 {
					t.Errorf("%d columns: %q", len(line)-1, line)
				}
			}
			check(t, text, aliceID, user, want)
			check(t, oneCopy(t, text), aliceID, user, want)
		})
	}
}

func TestGolden(t *testing.T) {
	got := encode(t, aliceID, "alice", sealed(1, 400))
	golden := filepath.Join("testdata", "block.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("differs from %s:\n%s", golden, got)
	}
}

func TestEncodeErrors(t *testing.T) {
	for _, tt := range []struct {
		name, id, user string
		n              int
		want           error
	}{
		{"id", "../../etc", "alice", 100, frame.ErrID},
		{"user", aliceID, "a b", 100, frame.ErrUser},
		{"empty", aliceID, "alice", 0, ErrSize},
		{"large", aliceID, "alice", MaxSealed + 1, ErrSize},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Encode(tt.id, tt.user, make([]byte, tt.n)); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// The messages that consoles are full of.
var messages = []string{
	"[    2.345678] EXT4-fs (vda): mounted filesystem with ordered data mode. Opts: (null)",
	"[   12.345678] cloud-init[402]: Cloud-init v. 22.4.2 running 'init' at Thu, 01 Jan 1970 00:00:12 +0000. Up 12.30 seconds.",
	"[12345.678901] random: crng init done",
	"[    0.000000] TOTP is no word of the kernel",
	"\x1b[K[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m - OpenBSD Secure Shell server.",
	"[\x1b[0;1;31mFAILED\x1b[0m] Failed to start something.",
	"         Starting \x1b[0;1;39mssh.service\x1b[0m...",
}

func message(r *rand.Rand) string { return messages[r.IntN(len(messages))] }

func TestLinesBetween(t *testing.T) {
	want := sealed(2, 1500)
	text := oneCopy(t, encode(t, aliceID, "alice", want))
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 2))
		var log strings.Builder
		for line := range strings.Lines(text) {
			for range r.IntN(3) {
				log.WriteString(message(r) + "\n")
			}
			log.WriteString(line)
		}
		check(t, log.String(), aliceID, "alice", want)
	}
}

// Every line is broken by up to three messages at random places.
func TestLinesInto(t *testing.T) {
	want := sealed(3, 1500)
	text := oneCopy(t, encode(t, aliceID, "alice", want))
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		var log strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			at := r.IntN(len(line) + 1)
			log.WriteString(line[:at])
			for range 1 + r.IntN(3) {
				log.WriteString(message(r) + "\r\n")
			}
			log.WriteString(line[at:] + "\r\n")
		}
		check(t, log.String(), aliceID, "alice", want)
	}
}

// Every line is broken in two places.
func TestLinesIntoTwice(t *testing.T) {
	want := sealed(4, 600)
	text := oneCopy(t, encode(t, aliceID, "alice", want))
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 4))
		var log strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			a, b := r.IntN(len(line)+1), r.IntN(len(line)+1)
			a, b = min(a, b), max(a, b)
			log.WriteString(line[:a] + message(r) + "\r\n")
			log.WriteString(line[a:b] + message(r) + "\r\n")
			log.WriteString(line[b:] + "\r\n")
		}
		check(t, log.String(), aliceID, "alice", want)
	}
}

// Messages that end with a carriage return alone.
func TestLinesIntoCR(t *testing.T) {
	want := sealed(17, 600)
	text := oneCopy(t, encode(t, aliceID, "alice", want))
	var log strings.Builder
	for i, line := range strings.Split(text, "\n") {
		at := i % (len(line) + 1)
		log.WriteString(line[:at] + messages[0] + "\r" + line[at:] + "\n")
	}
	check(t, log.String(), aliceID, "alice", want)
}

// A message without any sign of its own begins with characters that could go
// on where the line was broken: the length of the rest tells.
func TestLinesIntoUnmarked(t *testing.T) {
	want := sealed(5, 900)
	text := oneCopy(t, encode(t, aliceID, "alice", want))
	for at := 14; at < lineLen(3); at++ {
		var log strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasPrefix(line, "TOTP ") {
				line = line[:at] + "cafe123ABC: unmarked\n" + line[at:]
			}
			log.WriteString(line + "\n")
		}
		check(t, log.String(), aliceID, "alice", want)
	}
}

// Both copies in a storm of everything at once.
func TestStorm(t *testing.T) {
	want := sealed(6, 3000)
	text := encode(t, aliceID, "alice", want)
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 6))
		var log strings.Builder
		for _, c := range text {
			if r.IntN(150) == 0 {
				log.WriteString(message(r) + "\r\n")
			}
			log.WriteRune(c)
		}
		check(t, strings.ReplaceAll(log.String(), "\n", "\r\n"), aliceID, "alice", want)
	}
}

func TestForms(t *testing.T) {
	want := sealed(7, 1200)
	text := oneCopy(t, encode(t, aliceID, "alice", want))
	stamped := func(stamp string) string {
		var log strings.Builder
		for line := range strings.Lines(text) {
			log.WriteString(stamp + line)
		}
		return log.String()
	}
	utf16le := []byte{0xff, 0xfe}
	utf16be := []byte{0xfe, 0xff}
	for _, u := range utf16.Encode([]rune(text)) {
		utf16le = append(utf16le, byte(u), byte(u>>8))
		utf16be = append(utf16be, byte(u>>8), byte(u))
	}
	for _, tt := range []struct{ name, log string }{
		{"CRLF", strings.ReplaceAll(text, "\n", "\r\n")},
		{"CRCRLF", strings.ReplaceAll(text, "\n", "\r\r\n")},
		{"CR", strings.ReplaceAll(text, "\n", "\r")},
		{"time stamps", stamped("[2026-01-02 03:04:05] ")},
		{"time stamps with T", stamped("2026-01-02T03:04:05.678Z TTY1: ")},
		{"quoted", stamped("> ")},
		{"colours", "\x1b[2J\x1b[1;1H" + strings.ReplaceAll(text, " ", "\x1b[0;1m \x1b[0m")},
		{"title", strings.ReplaceAll(text, "TOTP ", "\x1b]0;title\x07TOTP \x1b(B")},
		{"NUL", strings.ReplaceAll(text, "\n", "\x00\n\x00")},
		{"no UTF-8", strings.ReplaceAll(text, "\n", "\xff\n")},
		{"UTF-16LE", string(utf16le)},
		{"UTF-16BE", string(utf16be)},
		{"twice", text + "login: \n" + text + text},
		{"message behind the line", strings.ReplaceAll(text, "\n", messages[0]+"\n\n")},
		{"no marks", regexpDelete(text, "-----")},
		{"one line", strings.ReplaceAll(text, "\n", " ")},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, tt.log, aliceID, "alice", want) })
	}
}

// regexpDelete removes the lines that begin with prefix.
func regexpDelete(text, prefix string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool {
		return strings.HasPrefix(l, prefix)
	}), "\n")
}

// Time stamps before every line, and messages in the lines.
func TestStampedAndBroken(t *testing.T) {
	const stamp = "[2026-01-02T03:04:05Z] "
	want := sealed(8, 900)
	text := oneCopy(t, encode(t, aliceID, "alice", want))
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 8))
		var log strings.Builder
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			at := r.IntN(len(line) + 1)
			log.WriteString(stamp + line[:at] + messages[0] + "\n" + stamp + line[at:] + "\n")
		}
		check(t, log.String(), aliceID, "alice", want)
	}
}

func TestInterleaved(t *testing.T) {
	a, b := sealed(9, 1500), sealed(10, 2500)
	as := strings.SplitAfter(encode(t, aliceID, "alice", a), "\n")
	bs := strings.SplitAfter(encode(t, bobID, "bob", b), "\n")
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 9))
		var log strings.Builder
		for x, y := as, bs; len(x)+len(y) > 0; {
			from := &x
			if len(x) == 0 || len(y) > 0 && r.IntN(2) == 0 {
				from = &y
			}
			log.WriteString((*from)[0])
			*from = (*from)[1:]
		}
		found := Decode([]byte(log.String()))
		if len(found) != 2 {
			t.Fatalf("found %d envelopes", len(found))
		}
		slices.SortFunc(found, func(x, y Found) int { return strings.Compare(x.User, y.User) })
		if f := found[0]; !f.Complete || f.ID != aliceID || !bytes.Equal(f.Sealed, a) {
			t.Errorf("alice: %+v", f)
		}
		if f := found[1]; !f.Complete || f.ID != bobID || !bytes.Equal(f.Sealed, b) {
			t.Errorf("bob: %+v", f)
		}
	}
}

func TestMissing(t *testing.T) {
	text := oneCopy(t, encode(t, aliceID, "alice", sealed(11, 700)))
	without := func(text string, gone ...int) string {
		for _, n := range gone {
			text = regexpDelete(text, fmt.Sprintf("TOTP %s %03d ", aliceID[:8], n))
		}
		return text
	}
	total := strings.Count(text, "TOTP "+aliceID[:8])
	if total < 20 {
		t.Fatalf("only %d lines", total)
	}
	for _, tt := range []struct {
		name, log string
		id, user  string
		lines     int
		missing   []int
	}{
		{"middle", without(text, 7, 9), aliceID, "alice", total, []int{7, 9}},
		{"header", without(text, 1), aliceID, "alice", total, []int{1}},
		{"last", without(text, total), aliceID, "alice", total, []int{total}},
		{"header, no marks", without(regexpDelete(text, "-----"), 1), aliceID[:8], "", total, []int{1}},
		{"last, no marks", without(regexpDelete(text, "-----"), total), aliceID, "alice", total, []int{total}},
		{"cut off", text[:strings.Index(text, fmt.Sprintf(" %03d ", total-1))], aliceID, "alice", total, []int{total - 1, total}},
		{"altered", strings.Replace(text, " 005 ", " 500 ", 1), aliceID, "alice", total, []int{5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found := Decode([]byte(tt.log))
			if len(found) != 1 {
				t.Fatalf("found %d", len(found))
			}
			f := found[0]
			if f.Complete || f.Sealed != nil {
				t.Errorf("complete")
			}
			if f.ID != tt.id || f.User != tt.user || f.Lines != tt.lines || !slices.Equal(f.Missing, tt.missing) {
				t.Errorf("got %q %q, %d lines, missing %v", f.ID, f.User, f.Lines, f.Missing)
			}
		})
	}
}

// Each copy lacks what the other has.
func TestBothCopiesDamaged(t *testing.T) {
	want := sealed(12, 2000)
	text := encode(t, aliceID, "alice", want)
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 12))
		lines := strings.SplitAfter(text, "\n")
		half := len(lines) / 2
		for i := range half {
			j := i
			if r.IntN(2) == 0 {
				j += half
			}
			lines[j] = damage(r, lines[j])
		}
		check(t, strings.Join(lines, ""), aliceID, "alice", want)
	}
}

// damage alters, shortens, lengthens or removes a line.
func damage(r *rand.Rand, line string) string {
	b := []byte(line)
	if len(b) < 2 {
		return ""
	}
	at := r.IntN(len(b) - 1)
	switch r.IntN(4) {
	case 0:
		b[at] ^= 1 << r.IntN(7)
	case 1:
		b = slices.Delete(b, at, at+1)
	case 2:
		b = slices.Insert(b, at, 'A')
	default:
		return ""
	}
	return string(b)
}

// Lines of two envelopes whose IDs begin alike make no envelope at all, and
// never a wrong one.
func TestSameBeginning(t *testing.T) {
	a := encode(t, aliceID, "alice", sealed(13, 700))
	b := encode(t, aliceID[:8]+bobID[8:], "bob", sealed(14, 700))
	for _, log := range []string{a + b, b + a, regexpDelete(a, "TOTP "+aliceID[:8]+" 003") + b} {
		for _, f := range Decode([]byte(log)) {
			if !f.Complete {
				continue
			}
			if !bytes.Equal(f.Sealed, sealed(13, 700)) && !bytes.Equal(f.Sealed, sealed(14, 700)) {
				t.Errorf("complete, and neither of the two")
			}
		}
	}
}

// A block under the mark of one envelope that holds another.
func TestWrongHeader(t *testing.T) {
	text := encode(t, aliceID, "alice", sealed(18, 100))
	var log strings.Builder
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 5 && f[0] == "TOTP" {
			line = fmt.Sprintf("TOTP %s %s %08x %s\n", bobID[:8], f[2], lineSum(bobID[:8], f[2], f[4]), f[4])
			log.WriteString(line)
		}
	}
	found := Decode([]byte(log.String()))
	if len(found) != 1 || found[0].Complete || found[0].ID != bobID[:8] {
		t.Errorf("found %+v", found)
	}
}

func TestDecodeNothing(t *testing.T) {
	for _, log := range []string{"", "\n", "TOTP", "TOTP TOTP TOTP ", strings.Repeat("T[", 1000), "\xff\xfe", "\x1b[", "-----BEGIN TOTP ENVELOPE"} {
		if found := Decode([]byte(log)); len(found) != 0 {
			t.Errorf("%q: found %+v", log, found)
		}
	}
}

// A log made to be slow: every line may begin a broken one.
func TestDecodeHostile(t *testing.T) {
	for _, piece := range []string{
		"TOTP abcdefgh 001 ",
		"TOTP abcdefgh 001 0123abcd AAAA\n",
		"TOTP \nabcdefgh \n001 \n",
		"TOTP abcdefgh 0\n",
		"T\n",
	} {
		log := append([]byte("-----BEGIN TOTP ENVELOPE abcdefgh alice 20-----\n"), bytes.Repeat([]byte(piece), 1<<20/len(piece))...)
		for _, f := range Decode(log) {
			if f.Complete {
				t.Errorf("%q: complete", piece)
			}
		}
	}
}

// FuzzDecode damages a log of two envelopes as the input says. Whatever is
// returned as complete must be one of the two.
func FuzzDecode(f *testing.F) {
	a, b := sealed(15, 500), sealed(16, 900)
	ab, _ := Encode(aliceID, "alice", a)
	bb, _ := Encode(bobID, "bob", b)
	base := append(slices.Clone(ab), bb...)
	f.Add([]byte{}, "")
	f.Add([]byte{0, 10, 1, 200, 9, 9}, "[    1.000000] x\n")
	f.Add([]byte{3, 200, 3, 100, 7, 50}, "\x1b[0m\r\n")
	f.Add([]byte{1, 1, 2, 2, 3, 3}, "TOTP abcdefgh 001 00000000 ")
	f.Fuzz(func(t *testing.T, edits []byte, insert string) {
		log := slices.Clone(base)
		for len(edits) >= 3 && len(log) > 0 && len(log) < 1<<16 {
			at := (int(edits[0])<<8 | int(edits[1])) % len(log)
			switch edits[2] % 4 {
			case 0:
				log = slices.Insert(log, at, []byte(insert)...)
			case 1:
				log[at] ^= edits[2]
			case 2:
				log = slices.Delete(log, at, min(len(log), at+int(edits[2])))
			case 3:
				log = append(log, log[at:min(len(log), at+int(edits[2])*4)]...)
			}
			edits = edits[3:]
		}
		for _, f := range Decode(log) {
			if !f.Complete {
				if f.Sealed != nil {
					t.Error("content without being complete")
				}
				continue
			}
			switch {
			case f.ID == aliceID && f.User == "alice" && bytes.Equal(f.Sealed, a):
			case f.ID == bobID && f.User == "bob" && bytes.Equal(f.Sealed, b):
			default:
				t.Errorf("a wrong envelope is complete: %q %q", f.ID, f.User)
			}
		}
	})
}

// FuzzDecodeRaw looks for panics and for envelopes out of nothing.
func FuzzDecodeRaw(f *testing.F) {
	ab, _ := Encode(aliceID, "alice", sealed(15, 100))
	f.Add(ab)
	f.Add([]byte("-----BEGIN TOTP ENVELOPE abcdefgh alice 9999-----\n"))
	f.Add([]byte("TOTP abcdefgh 001 01234567[\nTOTP"))
	f.Fuzz(func(t *testing.T, log []byte) {
		for _, f := range Decode(log) {
			if f.Complete && (len(f.Sealed) == 0 || len(f.Missing) > 0 || frame.CheckID(f.ID) != nil || frame.CheckUser(f.User) != nil) {
				t.Errorf("%+v", f)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	s := sealed(1, 6000)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		Encode(aliceID, "alice", s)
	}
}

// BenchmarkDecode reads a boot's log of 64 KiB with one envelope in it.
func BenchmarkDecode(b *testing.B) {
	text, _ := Encode(aliceID, "alice", sealed(1, 6000))
	boot := bytes.Repeat([]byte(messages[0]+"\r\n"), (64<<10-len(text))/(len(messages[0])+2))
	log := append(boot, text...)
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		if !Decode(log)[0].Complete {
			b.Fatal("not complete")
		}
	}
}

// BenchmarkDecodeBroken reads the same with a message in every line.
func BenchmarkDecodeBroken(b *testing.B) {
	text, _ := Encode(aliceID, "alice", sealed(1, 6000))
	var log []byte
	for line := range bytes.Lines(text) {
		at := len(line) / 2
		log = append(log, line[:at]...)
		log = append(log, messages[0]+"\n"...)
		log = append(log, line[at:]...)
	}
	b.SetBytes(int64(len(log)))
	for b.Loop() {
		if !Decode(log)[0].Complete {
			b.Fatal("not complete")
		}
	}
}
