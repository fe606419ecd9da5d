// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import "strings"

// nearest returns the word that s is most likely a misspelling of, or "".
func nearest(s string, words []string) string {
	s = strings.ReplaceAll(strings.ToLower(s), "-", "_")
	if len(s) > 64 {
		return "" // longer than every key by far, and not worth the time
	}
	best, least := "", 3
	for _, w := range words {
		if w == "" {
			continue
		}
		if d := distance(s, w); d < least && d < (len(w)+1)/2 {
			best, least = w, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop, change or swap with their
// neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+change)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
