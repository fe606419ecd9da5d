// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package leak

import "slices"

// automaton finds all needles in one pass over a stream, as Aho and Corasick
// have it, with every transition filled in.
type automaton struct {
	next  [][256]int32
	found [][]int32 // needles that end in a state, by index
	ends  []bool    // whether there are any
}

// scan is a pair of automata on their way through one stream.
type scan struct {
	needles   *Needles
	strict    int32
	loose     int32
	offset    int64
	recent    []byte  // the last bytes before what write is given, up to maxNeedle
	pending   []int32 // numbers that ended with the byte at pendingAt
	pendingAt int64
	hit       func(kind string, last int64)
}

// maxNeedle is more than the longest needle's length.
const maxNeedle = 256

func newAutomaton(list []needle) *automaton {
	a := &automaton{next: make([][256]int32, 1), found: make([][]int32, 1)}
	for i, n := range list {
		if len(n.bytes) == 0 {
			continue
		}
		if len(n.bytes) >= maxNeedle {
			panic("leak: needle too long: " + n.kind)
		}
		state := int32(0)
		for _, b := range n.bytes {
			b = fold(b)
			if a.next[state][b] == 0 {
				a.next = append(a.next, [256]int32{})
				a.found = append(a.found, nil)
				a.next[state][b] = int32(len(a.next) - 1)
			}
			state = a.next[state][b]
		}
		a.found[state] = append(a.found[state], int32(i))
	}
	a.link()
	return a
}

// link fills in, breadth first, where a state goes on a byte that continues none
// of its needles: to where the longest proper suffix goes.
func (a *automaton) link() {
	fail := make([]int32, len(a.next))
	var queue []int32
	for b := range 256 {
		if s := a.next[0][b]; s != 0 {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		a.found[s] = append(a.found[s], a.found[fail[s]]...)
		for b := range 256 {
			t := a.next[s][b]
			if t == 0 {
				a.next[s][b] = a.next[fail[s]][b]
				continue
			}
			fail[t] = a.next[fail[s]][b]
			queue = append(queue, t)
		}
	}
	a.ends = make([]bool, len(a.next))
	for s := range a.next {
		a.ends[s] = len(a.found[s]) > 0
		for b := range 256 {
			a.next[s][b] = a.next[s][fold(byte(b))]
		}
	}
}

// write takes the stream's next bytes. A scan belongs to one goroutine, and
// watching each of its steps would make it ten times slower.
//
//go:norace
func (s *scan) write(data []byte) {
	strict, loose := s.needles.strict, s.needles.loose
	in, out := s.strict, s.loose // kept in registers: the loop sees gigabytes
	for i, b := range data {
		if len(s.pending) > 0 {
			s.settle(!isDigit(b))
		}
		in = strict.next[in][b]
		if strict.ends[in] {
			for _, n := range strict.found[in] {
				s.match(n, data, i)
			}
		}
		if separator[b] {
			continue
		}
		out = loose.next[out][b]
		if loose.ends[out] {
			for _, n := range loose.found[out] {
				if !slices.Contains(strict.found[in], n) {
					s.hit(s.needles.list[n].kind+", in pieces", s.offset+int64(i))
				}
			}
		}
	}
	s.strict, s.loose = in, out
	s.offset += int64(len(data))
	s.recent = append(s.recent, data[max(0, len(data)-maxNeedle):]...)
	s.recent = s.recent[max(0, len(s.recent)-maxNeedle):]
}

// end says that nothing follows.
func (s *scan) end() { s.settle(true) }

// match takes a needle that ends with data[i].
func (s *scan) match(number int32, data []byte, i int) {
	n := &s.needles.list[number]
	last := s.offset + int64(i)
	if !n.number {
		s.hit(n.kind, last)
		return
	}
	before := i - len(n.bytes)
	if before < 0 {
		data, before = s.recent, before+len(s.recent)
	}
	if before >= 0 && isDigit(data[before]) {
		return
	}
	s.pending = append(s.pending, number)
	s.pendingAt = last
}

func (s *scan) settle(alone bool) {
	if alone {
		for _, i := range s.pending {
			s.hit(s.needles.list[i].kind, s.pendingAt)
		}
	}
	s.pending = s.pending[:0]
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

func fold(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b + 'a' - 'A'
	}
	return b
}

// separator has the bytes that can stand between the pieces of a secret that was
// grouped, wrapped, listed or stored as UTF-16.
var separator = func() (table [256]bool) {
	for _, b := range []byte("\x00 \t\r\n-:_.,;|\"'") {
		table[b] = true
	}
	return table
}()
