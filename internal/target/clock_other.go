// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package target

import (
	"errors"
	"time"
)

func kernelClock() (synchronised bool, off time.Duration, err error) {
	return false, 0, errors.ErrUnsupported
}
