// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"os/exec"
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
