// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package page_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/console"
)

// messages are what consoles are full of.
var messages = []string{
	"[    2.345678] EXT4-fs (vda): mounted filesystem with ordered data mode. Opts: (null)\n",
	"[12345.678901] random: crng init done\r\n",
	"\x1b[K[\x1b[0;32m  OK  \x1b[0m] Started \x1b[0;1;39mssh.service\x1b[0m - OpenBSD Secure Shell server.\r\n",
	"         Starting \x1b[0;1;39mssh.service\x1b[0m...\n",
	"TOTP is no word of the kernel\n",
	"\x1b]0;title\x07debian login: ",
	"\xff\xfe\x00é\n",
	"TOTP abcdefgh 001 00000000 ",
}

// damagedLog returns a log with one to three envelopes in it that has been
// through what a console does to text, more of it the higher the seed.
func damagedLog(t testing.TB, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	var log strings.Builder
	for n := range 1 + r.IntN(3) {
		file := []byte("age-encryption.org/v1\n")
		for size := 30 + r.IntN(900); len(file) < size; {
			file = append(file, byte(r.Uint32()))
		}
		id := []string{aliceID, bobID, "aaaabbbb234567ijklmnopqrsu"}[n]
		text, err := console.Encode(id, []string{"alice", "bob", "_x.y-z"}[n], file)
		if err != nil {
			t.Fatal(err)
		}
		block := string(text)
		if r.IntN(2) == 0 { // one copy alone
			block = block[:len(block)/2]
		}
		log.WriteString(block)
	}
	text := log.String()
	for range r.IntN(2 + int(seed)/20) {
		text = damages[r.IntN(len(damages))](r, text)
	}
	return []byte(text)
}

var damages = []func(r *rand.Rand, log string) string{
	// a message between lines, or in the middle of one
	func(r *rand.Rand, log string) string { return insert(r, log, messages[r.IntN(len(messages))]) },
	func(r *rand.Rand, log string) string { return insert(r, log, messages[r.IntN(2)]) },
	func(r *rand.Rand, log string) string { return insert(r, log, "\n"+messages[r.IntN(len(messages))]) },
	// a character lost, doubled or altered
	func(r *rand.Rand, log string) string { i := r.IntN(len(log)); return log[:i] + log[i+1:] },
	func(r *rand.Rand, log string) string { i := r.IntN(len(log)); return log[:i+1] + log[i:] },
	func(r *rand.Rand, log string) string {
		i := r.IntN(len(log))
		return log[:i] + string(rune(32+r.IntN(95))) + log[i+1:]
	},
	// a piece lost, the beginning or the end
	func(r *rand.Rand, log string) string {
		i := r.IntN(len(log))
		return log[:i] + log[min(len(log), i+r.IntN(300)):]
	},
	func(r *rand.Rand, log string) string { return log[r.IntN(1+len(log)/20):] },
	func(r *rand.Rand, log string) string { return log[:len(log)-r.IntN(1+len(log)/20)] },
	// line ends, prefixes, wrapped lines
	func(r *rand.Rand, log string) string { return strings.ReplaceAll(log, "\n", "\r\n") },
	func(r *rand.Rand, log string) string { return strings.ReplaceAll(log, "\n", "\n[  0.1] tty: ") },
	func(r *rand.Rand, log string) string {
		var b strings.Builder
		for line := range strings.Lines(log) {
			for width := 60 + r.IntN(20); len(line) > width; line = line[width:] {
				b.WriteString(line[:width] + "\n")
			}
			b.WriteString(line)
		}
		return b.String()
	},
	func(r *rand.Rand, log string) string { return log + log },
	// PowerShell; once, since nothing else is done to UTF-16
	func(r *rand.Rand, log string) string {
		if r.IntN(4) > 0 || strings.HasPrefix(log, "\xff\xfe") {
			return log
		}
		b := []byte{0xff, 0xfe}
		for _, u := range utf16.Encode([]rune(log)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return string(b)
	},
}

func insert(r *rand.Rand, log, s string) string {
	i := r.IntN(len(log))
	return log[:i] + s + log[i:]
}
