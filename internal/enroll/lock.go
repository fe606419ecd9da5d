// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

const (
	lockPause = 100 * time.Millisecond

	// handPatience is how long a command waits for the lock: longer than another
	// enrollment, reset or repair has it, and less than totp-logins.service may take.
	handPatience = 20 * time.Second

	// unitPatience is that of totp-agent.service, which has 30 seconds for all it does.
	unitPatience = 10 * time.Second
)

// runPatience returns how long a run waits for the lock.
func runPatience() time.Duration {
	if os.Getenv("INVOCATION_ID") != "" { // systemd sets it for a unit
		return unitPatience
	}
	return handPatience
}

// lock waits for another agent that is at work, which takes a moment. The error is
// [errAlreadyLocked] if it does not end in time, or before ctx is done.
func lock(ctx context.Context, t *target.Target, patience time.Duration) (unlock func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		unlock, err = t.Lock(target.StateDir)
		if !errors.Is(err, target.ErrLocked) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			name := target.StateDir
			if who := t.Holder(name); who != "" {
				name += ": locked by " + who
			}
			return nil, fmt.Errorf("%s: %w", name, errAlreadyLocked)
		case <-time.After(lockPause):
		}
	}
}
