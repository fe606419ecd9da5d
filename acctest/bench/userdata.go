// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// printUserData times the making of user-data: a provider's control plane does
// it for every order, by the library or by the program.
func printUserData(dir string) error {
	_, recipient, err := seal.GenerateX25519()
	if err != nil {
		return err
	}
	spec := cloudinit.Spec{Issuer: "Example Hosting", Users: []cloudinit.User{{Name: "alice", Recipients: []string{recipient}}}}
	const docs = 2000
	start := time.Now()
	for i := range docs {
		spec.Token = cloudinit.Token([16]byte{byte(i), byte(i >> 8)})
		if _, err := spec.Document(); err != nil {
			return err
		}
	}
	each := time.Since(start) / docs

	program := filepath.Join(dir, "totpctl")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./cmd/totpctl").CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	var walls, cpus []time.Duration
	for range runs {
		cmd := exec.Command(program, "user-data", "--user", "alice", "--recipient", recipient)
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		walls = append(walls, time.Since(start))
		cpus = append(cpus, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	slices.Sort(walls)
	slices.Sort(cpus)
	fmt.Printf("\n%-28s %12s %12s\n", "user-data", "CPU", "wall")
	fmt.Printf("%-28s %12s %12s\n", "limit", "", "30ms")
	fmt.Printf("%-28s %12s %12s\n", "totpctl user-data", cpus[runs/2].Round(10*time.Microsecond), walls[runs/2].Round(10*time.Microsecond))
	fmt.Printf("%-28s %12s, %d documents a second (limit: 1000)\n\n", "package cloudinit", each.Round(time.Microsecond), time.Second/each)
	return nil
}
