// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"io"
	"os"
	"syscall"
	"testing"
	"time"
)

// What a lost connection sends does not end the agent; this process, if it did.
func TestLostConnection(t *testing.T) {
	if status := run([]string{"version"}, io.Discard, io.Discard); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
}
