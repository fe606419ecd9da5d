// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"context"
	"time"
)

// The module's standard limit is 3 attempts in 30 seconds. One of the three is
// left to the account's owner.
const (
	paceAttempts = 2
	pacePeriod   = 32 * time.Second // whole seconds, and the server's clock
)

// pace counts the attempts that the PAM module counts.
type pace struct {
	last  []time.Time
	total int

	now   func() time.Time
	sleep func(context.Context, time.Duration) error
}

func newPace() pace { return pace{now: time.Now, sleep: sleep} }

// attempt counts one.
func (p *pace) attempt() {
	p.total++
	p.last = append(p.last, p.now())
}

// due is how long the next attempt has to wait.
func (p *pace) due() time.Duration {
	if len(p.last) < paceAttempts {
		return 0
	}
	return max(0, p.last[len(p.last)-paceAttempts].Add(pacePeriod).Sub(p.now()))
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
