// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package page_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page/pagetest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// TestTrials: the page tries the keys on so many recipients of an input, and says how
// many envelopes it has left out. totpctl open does the same.
func TestTrials(t *testing.T) {
	const most = 4096
	node := pagetest.Start(t)
	key := keyKinds(t)[0]
	last := armored(t, sealed(t, text(t, newCard(nil)), key.recipient))
	for _, tt := range []struct {
		name            string
		each, envelopes int
		stranger        string // what the recipients' kind ends with
		failed          []string
		untried         int
	}{
		{"few", 100, 3, "", slices.Repeat([]string{"wrong key"}, 3), 0},
		{"the most of one", seal.MaxRecipients, 1, "", []string{"wrong key"}, 0},
		{"too many of one", seal.MaxRecipients + 1, 2, "", slices.Repeat([]string{"too many recipients"}, 2), 0},
		{"kinds that are not text", seal.MaxRecipients + 1, 1, "\xff", []string{"too many recipients"}, 0},
		{"too many", 100, most/100 + 1, "", append(slices.Repeat([]string{"wrong key"}, most/100), "not tried"), 1},
		{"far too many", 100, most/100 + 5, "", append(slices.Repeat([]string{"wrong key"}, most/100), "not tried"), 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var input bytes.Buffer
			for i := range tt.envelopes {
				input.Write(armored(t, fmt.Appendf(nil, "age-encryption.org/v1\n%s--- %s\n%032d",
					strings.Repeat("-> stranger"+tt.stranger+"\n\n", tt.each), strings.Repeat("A", 43), i)))
			}
			// Without a card, the problem says what was left out.
			if r := node.Open(t, input.Bytes(), key.identity); r.Problem == "" || tt.untried > 1 && !strings.Contains(r.Said, fmt.Sprintf(" %d envelopes were not tried", tt.untried)) {
				t.Errorf("problem %q: %s", r.Problem, r.Said)
			}
			// The last envelope needs one try, and is opened.
			r := node.Open(t, append(input.Bytes(), last...), key.identity)
			if len(r.Opened) != 1 || !slices.Equal(r.Failed, tt.failed) {
				t.Errorf("%d opened, failed %q, problem %q", len(r.Opened), r.Failed, r.Problem)
			}
		})
	}
}
