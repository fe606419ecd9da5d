// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"slices"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
)

// TestProblemsThatEnd: a problem of a user is listed only while it keeps a user out
// or without a card.
func TestProblemsThatEnd(t *testing.T) {
	failed := map[string]Delivery{"virtio": {State: deliver.Failed}}
	tampered := map[string]Delivery{"http": {State: deliver.Tampered}}
	for name, tt := range map[string]struct {
		user UserStatus
		want []string
	}{
		"a channel fails":                        {UserStatus{Enrolled: true, Card: CardWaiting, Delivery: failed}, []string{CodeDeliveryFailed}},
		"a channel fails, another was confirmed": {UserStatus{Enrolled: true, Card: CardDelivered, Delivery: failed}, nil},
		"a channel fails, another one offers":    {UserStatus{Enrolled: true, Card: CardOffered, Delivery: failed}, []string{CodeDeliveryFailed}},
		"a channel fails, and the user is in":    {UserStatus{Enrolled: true, Used: true, Card: CardWaiting, Delivery: failed}, nil},
		"a channel fails, the user is in by it":  {UserStatus{Enrolled: true, Used: true, Card: CardUsed, Delivery: failed}, nil},
		"a foreign card, and the user is in":     {UserStatus{Enrolled: true, Used: true, Card: CardWaiting, Delivery: tampered}, []string{CodeCardTampered}},
		"rate-limited":                           {UserStatus{Enrolled: true, RateLimit: &RateLimit{Limited: true}}, []string{CodeRateLimited}},
		"rate-limited until a while ago":         {UserStatus{Enrolled: true, RateLimit: &RateLimit{}}, nil},
	} {
		if got := tt.user.codes(); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
