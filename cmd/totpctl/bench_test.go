// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// BenchmarkOpen opens an envelope as a user does: a whole process, from its
// start to the card on standard output.
func BenchmarkOpen(b *testing.B) {
	d := newDesk(b, seal.GenerateX25519)
	for b.Loop() {
		if out, err := exec.Command("totpctl", "open", "-i", d.identity, d.envelope).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}

// BenchmarkUserData makes a document with a ticket as a control plane without
// the library does: a whole process.
func BenchmarkUserData(b *testing.B) {
	_, recipient, err := seal.GenerateX25519()
	check(b, err)
	dir := b.TempDir()
	for i := 0; b.Loop(); i++ {
		cmd := exec.Command("totpctl", "user-data", "--user", "alice", "--recipient", recipient, "--ticket", filepath.Join(dir, fmt.Sprint(i)))
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
}
