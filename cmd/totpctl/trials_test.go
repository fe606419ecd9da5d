// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// countingIdentity opens nothing, and counts the recipients that it is tried on.
type countingIdentity struct{ tried *int }

func (c countingIdentity) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	*c.tried += len(stanzas)
	return nil, age.ErrIncorrectIdentity
}

// sealedToMany is an age file with so many recipients of a kind.
func sealedToMany(kind string, n int) finding {
	return finding{form: "age file", sealed: []byte("age-encryption.org/v1\n" + strings.Repeat("-> "+kind+" a\n\n", n) + "--- " + strings.Repeat("A", 43) + "\n")}
}

// TestTrials: a log that a stranger could write into costs a bounded number of trials,
// and the error counts what was left out.
func TestTrials(t *testing.T) {
	for _, tt := range []struct {
		name       string
		kind       string
		each, ids  int // recipients, identities
		envelopes  int
		last       int // recipients of one more envelope
		tried      int
		leftOut    int
		recipients bool // there are too many in one envelope
	}{
		{"few", "X25519", 2, 2, 100, 1, 402, 0, false},
		{"the most", "X25519", 128, 1, maxTrials / 128, 0, maxTrials, 0, false},
		{"too many", "X25519", 100, 1, 400, 1, 32701, 73, false}, // the last one needs few
		{"two identities", "X25519", 100, 2, 200, 1, 32602, 37, false},
		{"RSA", "ssh-rsa", 1, 1, 3000, 0, maxTrials / rsaTrials, 3000 - maxTrials/rsaTrials, false},
		{"too many of one", "X25519", seal.MaxRecipients + 1, 1, 400, 1, 1, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tried := 0
			var ids []age.Identity
			for range tt.ids {
				ids = append(ids, countingIdentity{&tried})
			}
			var found []finding
			for range tt.envelopes {
				found = append(found, sealedToMany(tt.kind, tt.each))
			}
			if tt.last > 0 {
				found = append(found, sealedToMany(tt.kind, tt.last))
			}
			_, _, failed := openAll(found, ids, nil)
			if tried != tt.tried {
				t.Errorf("%d trials, want %d", tried, tt.tried)
			}
			first := failed[0]
			if want := tt.leftOut > 0; errors.Is(first.err, errTrials) != want || want && !strings.Contains(first.text(), fmt.Sprint(tt.leftOut-1)) {
				t.Errorf("%v, want %d left out", first.err, tt.leftOut)
			}
			if errors.Is(failed[0].err, seal.ErrManyRecipients) != tt.recipients {
				t.Errorf("the first: %v", failed[0].err)
			}
		})
	}
}
