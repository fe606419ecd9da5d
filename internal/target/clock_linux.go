// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// kernelClock reads the kernel's clock state, which everybody may.
func kernelClock() (synchronised bool, off time.Duration, err error) {
	var tx unix.Timex // no modes: nothing is set
	if _, err := unix.Adjtimex(&tx); err != nil {
		return false, 0, fmt.Errorf("adjtimex: %w", err)
	}
	return tx.Status&unix.STA_UNSYNC == 0, time.Duration(tx.Maxerror) * time.Microsecond, nil
}
