// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package faillock reads the counters of pam_faillock(8).
//
// A counter is a file of the user's name, of records of 64 bytes and nothing else:
//
//	0   52  source: the client's address, NUL-padded, without a NUL where it fills the field
//	52   2  reserved
//	54   2  status: 1 valid, 2 the source is a host, 4 a terminal
//	56   8  time: seconds since 1970
//
// Numbers are in the machine's byte order. Records have no order, and a record
// that is not valid does not count. The format is the same in Linux-PAM 1.4 to 1.7.
//
// The module gives the file to the user, who can write anything into it. A
// refused try is not in it: the module writes while the account is not locked.
package faillock

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// MaxSize is the size of the largest counter that the module reads.
const MaxSize = 1024 * recordSize

// ErrFormat means that a file is not a counter.
var ErrFormat = errors.New("must be at most 1024 records of 64 bytes")

// A Record is a try that was counted.
type Record struct {
	Time   time.Time
	Source netip.Addr // zero where it is not an IP address
	Valid  bool
}

// A Limit is the module's deny, and its fail_interval and unlock_time, which are
// the same here.
type Limit struct {
	Tries  int
	Period time.Duration
}

const (
	recordSize = 64
	sourceSize = 52
	statusAt   = 54
	timeAt     = 56

	statusValid = 1

	// maxTime is the last second of the year 9999, which time.Time can print.
	maxTime = 253402300799
)

// Parse reads a counter.
func Parse(data []byte) ([]Record, error) {
	if len(data) > MaxSize || len(data)%recordSize != 0 {
		return nil, ErrFormat
	}
	records := make([]Record, 0, len(data)/recordSize)
	for r := data; len(r) > 0; r = r[recordSize:] {
		seconds := min(binary.NativeEndian.Uint64(r[timeAt:]), maxTime)
		source, _, _ := bytes.Cut(r[:sourceSize], []byte{0})
		addr, err := netip.ParseAddr(string(source))
		if err != nil || addr.Zone() != "" {
			addr = netip.Addr{}
		}
		records = append(records, Record{
			Time:   time.Unix(int64(seconds), 0),
			Source: addr.Unmap(),
			Valid:  binary.NativeEndian.Uint16(r[statusAt:])&statusValid != 0,
		})
	}
	return records, nil
}

// LockedUntil returns the first second in which the account gets a prompt again,
// or zero where it would get one now.
func LockedUntil(records []Record, limit Limit, now time.Time) time.Time {
	var latest time.Time
	for _, r := range records {
		if r.Valid && r.Time.After(latest) {
			latest = r.Time
		}
	}
	counted := 0
	for _, r := range records {
		if r.Valid && latest.Sub(r.Time) < limit.Period {
			counted++
		}
	}
	// The module compares whole seconds, and unlocks after the period, not at its end.
	until := latest.Add(limit.Period + time.Second)
	if counted < limit.Tries || !now.Before(until) {
		return time.Time{}
	}
	return until
}
