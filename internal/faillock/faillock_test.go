// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package faillock

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// record is a record as the module writes it.
func record(source string, status uint16, at int64) []byte {
	b := make([]byte, recordSize)
	copy(b[:sourceSize], source)
	binary.NativeEndian.PutUint16(b[statusAt:], status)
	binary.NativeEndian.PutUint64(b[timeAt:], uint64(at))
	return b
}

func join(records ...[]byte) (all []byte) {
	for _, r := range records {
		all = append(all, r...)
	}
	return all
}

func TestParse(t *testing.T) {
	got, err := Parse(join(record("192.0.2.7", 3, 100), record("2001:db8::1", 2, 101), record("tty1", 5, -1), record("\x1b[2J", 3, 0)))
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		source string
		valid  bool
		at     int64
	}{{"192.0.2.7", true, 100}, {"2001:db8::1", false, 101}, {"invalid IP", true, maxTime}, {"invalid IP", true, 0}} {
		if r := got[i]; r.Source.String() != want.source || r.Valid != want.valid || r.Time.Unix() != want.at {
			t.Errorf("record %d: %v, want %v", i, r, want)
		}
	}
	for _, size := range []int{1, 63, 65, MaxSize + recordSize} {
		if _, err := Parse(make([]byte, size)); !errors.Is(err, ErrFormat) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	for _, size := range []int{0, MaxSize} {
		if got, err := Parse(make([]byte, size)); err != nil || len(got) != size/recordSize {
			t.Errorf("%d bytes: %d records, %v", size, len(got), err)
		}
	}
}

func TestLockedUntil(t *testing.T) {
	const now = 1000
	limit := Limit{Tries: 3, Period: 30 * time.Second}
	for _, tt := range []struct {
		name  string
		at    []int64
		until int64 // zero: not locked
	}{
		{"nothing", nil, 0},
		{"two", []int64{now, now}, 0},
		{"three at once", []int64{now, now, now}, now + 31},
		{"in any order", []int64{now - 2, now - 20, now - 10}, now + 29},
		{"three within the period of the last", []int64{now - 29, now - 10, now}, now + 31},
		{"one too old", []int64{now - 30, now - 10, now}, 0},
		{"the last second", []int64{now - 30, now - 30, now - 30}, now + 1},
		{"the lock is over", []int64{now - 31, now - 31, now - 31}, 0},
		{"a clock that went back", []int64{now + 500, now + 500, now + 500}, now + 531},
	} {
		var records []Record
		for _, at := range tt.at {
			records = append(records, Record{Time: time.Unix(at, 0), Valid: true}, Record{Time: time.Unix(now, 0)})
		}
		want := time.Time{}
		if tt.until != 0 {
			want = time.Unix(tt.until, 0)
		}
		if got := LockedUntil(records, limit, time.Unix(now, 0)); !got.Equal(want) {
			t.Errorf("%s: %v, want %v", tt.name, got, want)
		}
	}
}

// What a user has written into the file neither panics nor is printed as it is.
func FuzzParse(f *testing.F) {
	f.Add([]byte{})
	f.Add(join(record("192.0.2.7", 3, 1_900_000_000), record("::1%eth0", 3, -1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		records, err := Parse(data)
		if err != nil {
			return
		}
		for _, r := range records {
			if _, err := r.Time.MarshalJSON(); err != nil {
				t.Error(err)
			}
			if r.Source.Zone() != "" {
				t.Errorf("zone %q", r.Source.Zone())
			}
		}
		now := time.Unix(1_900_000_000, 0)
		if until := LockedUntil(records, Limit{Tries: 3, Period: 30 * time.Second}, now); !until.IsZero() && !until.After(now) {
			t.Errorf("locked until %v, which is over", until)
		}
	})
}
