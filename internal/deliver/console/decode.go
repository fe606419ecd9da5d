// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package console

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// Decode finds the envelopes in a console log, in the order in which they
// first appear. Envelopes that are not complete are returned as well, so that
// a caller can say what is missing.
func Decode(log []byte) []Found {
	d := decoder{lines: strings.Split(clean(log), "\n"), blocks: map[string]*block{}}
	for i := range d.lines {
		d.scan(i)
	}
	found, whole := d.assemble()
	if whole {
		return found
	}
	for _, b := range d.broken {
		d.splice(b.line, b.at)
	}
	found, _ = d.assemble()
	return found
}

// Bounds on what a hostile log can make Decode do.
const (
	maxBlocks = 1024
	maxBroken = 50000
	maxTries  = 1 << 20 // ways to put broken lines together
)

type decoder struct {
	lines  []string
	blocks map[string]*block // by ID8
	order  []string
	broken []place
	tries  int
}

// place is where a numbered line begins that is not whole.
type place struct{ line, at int }

// block is what is known of one envelope.
type block struct {
	id, user string // from the marks
	total    int    // from the marks
	highest  int
	chunks   map[int]string
}

func (d *decoder) block(id8 string) *block {
	b := d.blocks[id8]
	if b == nil {
		b = &block{chunks: map[int]string{}}
		if len(d.blocks) < maxBlocks {
			d.blocks[id8] = b
			d.order = append(d.order, id8)
		}
	}
	return b
}

// The agent, which only encodes, does not pay for these at its start.
var (
	beginMark = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`-----BEGIN TOTP ENVELOPE ([a-z2-7]{8}) ([a-z_][a-z0-9_.-]{0,31}) ([0-9]{1,4})-----`)
	})
	endMark = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`-----END TOTP ENVELOPE ([a-z2-7]{26})-----`)
	})
)

// scan takes what line i has whole, and notes what it has of broken lines.
func (d *decoder) scan(i int) {
	line := d.lines[i]
	if strings.Contains(line, "TOTP ENVELOPE") {
		if m := beginMark().FindStringSubmatch(line); m != nil {
			b := d.block(m[1])
			b.user = m[2]
			if n, _ := strconv.Atoi(m[3]); n > 0 && n <= maxLines {
				b.total = n
			}
		}
		if m := endMark().FindStringSubmatch(line); m != nil {
			d.block(m[1][:8]).id = m[1]
		}
	}
	for at := 0; at < len(line); at++ {
		next := strings.IndexByte(line[at:], 'T')
		if next < 0 {
			return
		}
		at += next
		if n := d.take(line[at:]); n > 0 {
			at += n - 1
			continue
		}
		if mayBegin(line[at:]) && len(d.broken) < maxBroken {
			d.broken = append(d.broken, place{i, at})
		}
	}
}

// take takes the numbered line that s begins with, and returns its length, or
// zero if there is none.
func (d *decoder) take(s string) int {
	for _, width := range []int{3, 4} {
		n := lineLen(width)
		if len(s) < n || fit(s[:n], width) < n {
			continue
		}
		id8, number := s[5:13], s[14:14+width]
		crc, chunk := s[15+width:23+width], s[24+width:n]
		if want, err := strconv.ParseUint(crc, 16, 32); err != nil || uint32(want) != lineSum(id8, number, chunk) {
			continue
		}
		num, _ := strconv.Atoi(number)
		if num < 1 || num > maxLines {
			return n
		}
		b := d.block(id8)
		if _, ok := b.chunks[num]; !ok {
			b.chunks[num] = chunk
			b.highest = max(b.highest, num)
		}
		return n
	}
	return 0
}

// assemble returns what has been found so far, and whether all of it is whole.
func (d *decoder) assemble() (found []Found, whole bool) {
	var marks []Found
	whole = true
	for _, id8 := range d.order {
		f := d.blocks[id8].assemble(id8)
		if len(d.blocks[id8].chunks) == 0 {
			marks = append(marks, f)
			continue
		}
		whole = whole && f.Complete
		found = append(found, f)
	}
	if len(found) == 0 {
		return marks, false
	}
	// A mark without a single line beside other envelopes is a damaged mark.
	return found, whole
}

func (b *block) assemble(id8 string) Found {
	f := Found{ID: id8, User: b.user, Lines: max(b.total, b.highest)}
	if b.id != "" {
		f.ID = b.id
	}
	h, headerLen, ok := b.header()
	if ok && h.ID[:8] != id8 {
		return f
	}
	if ok {
		f.ID, f.User = h.ID, h.User
		f.Lines = lineCount(headerLen + h.Length + sha256.Size)
	}
	var stream []byte
	for n := 1; n <= f.Lines; n++ {
		chunk, have := b.chunks[n]
		if !have {
			f.Missing = append(f.Missing, n)
			continue
		}
		stream = append(stream, decodeChunk(chunk)...)
	}
	if !ok || len(f.Missing) > 0 {
		return f
	}
	end := headerLen + h.Length
	sum := sha256.Sum256(stream[:end])
	if !bytes.Equal(sum[:], stream[end:end+sha256.Size]) {
		return f
	}
	f.Complete, f.Sealed = true, bytes.Clone(stream[headerLen:end])
	return f
}

// header reads the header from the first lines, if they are there.
func (b *block) header() (h frame.Header, length int, ok bool) {
	var s []byte
	for n := 1; len(s) <= frame.MaxLine; n++ {
		chunk, have := b.chunks[n]
		if !have {
			break
		}
		s = append(s, decodeChunk(chunk)...)
		if i := bytes.IndexByte(s, '\n'); i >= 0 {
			h, err := frame.ParseHeader(string(s[:i+1]))
			return h, i + 1, err == nil && h.String() == string(s[:i+1])
		}
	}
	return frame.Header{}, 0, false
}

// decodeChunk decodes what fit has checked: it cannot fail.
func decodeChunk(chunk string) []byte {
	b, _ := base64.StdEncoding.DecodeString(chunk)
	return b
}
