// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestNewClock(t *testing.T) {
	for _, c := range []struct {
		synchronised bool
		off          time.Duration
		want         string
	}{
		{true, 12 * time.Millisecond, "synchronised; at most 0.012 s off, by the kernel's estimate"},
		{false, 2500 * time.Millisecond, "not synchronised; at most 2.500 s off, by the kernel's estimate"},
		{false, 16 * time.Second, "not synchronised; how far it is off is not known"},
	} {
		if got := newClock(c.synchronised, c.off).String(); got != c.want {
			t.Errorf("%v %v: %q, want %q", c.synchronised, c.off, got, c.want)
		}
	}
}

// The clock of a root that is not running is nobody's.
func TestClockOfADisk(t *testing.T) {
	tg, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer tg.Close()
	if c := tg.Clock(); c.State != ClockUnknown || !strings.Contains(c.String(), "does not run") {
		t.Errorf("%v", c)
	}
}

func TestKernelClock(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("adjtimex is Linux's")
	}
	if _, off, err := kernelClock(); err != nil || off < 0 {
		t.Errorf("%v, %v", off, err)
	}
}
