// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"fmt"
	"time"
)

// A Clock is what the kernel knows of how right the machine's clock is.
type Clock struct {
	State ClockState `json:"state"`
	Why   string     `json:"why,omitempty"` // why it is unknown

	// Off is the kernel's own estimate of how far the clock is off at most, in
	// seconds; 0 where it has none.
	Off float64 `json:"off_by_at_most,omitempty"`
}

// ClockState says whether something keeps the clock right.
type ClockState string

// The states.
const (
	ClockSynchronised   ClockState = "synchronised"
	ClockUnsynchronised ClockState = "unsynchronised"
	ClockUnknown        ClockState = "unknown"
)

func (c Clock) String() string {
	switch c.State {
	case ClockSynchronised:
		return "synchronised" + c.off()
	case ClockUnsynchronised:
		if c.Off == 0 {
			return "not synchronised; how far it is off is not known"
		}
		return "not synchronised" + c.off()
	}
	return "unknown whether it is synchronised: " + c.Why
}

func (c Clock) off() string {
	if c.Off == 0 {
		return ""
	}
	return fmt.Sprintf("; at most %.3f s off, by the kernel's estimate", c.Off)
}

// Clock asks the kernel whether the clock is synchronised, adjtimex(2): what
// timedatectl shows as "System clock synchronized". A service that sets the clock
// without telling the kernel, as chrony does without its rtcsync, is not seen.
// Of a system that does not run, and in a chroot, nothing can be said: the clock is
// that of the machine that looks.
func (t *Target) Clock() Clock {
	if !t.Booted() {
		return Clock{State: ClockUnknown, Why: "systemd does not run this system, as in a chroot or on a mounted disk"}
	}
	synchronised, off, err := kernelClock()
	if err != nil {
		return Clock{State: ClockUnknown, Why: err.Error()}
	}
	return newClock(synchronised, off)
}

// noEstimate is what the kernel says while it knows nothing, and never exceeds:
// NTP_PHASE_LIMIT of linux/timex.h.
const noEstimate = 16 * time.Second

func newClock(synchronised bool, off time.Duration) Clock {
	c := Clock{State: ClockUnsynchronised}
	if synchronised {
		c.State = ClockSynchronised
	}
	if off < noEstimate {
		c.Off = off.Seconds()
	}
	return c
}
