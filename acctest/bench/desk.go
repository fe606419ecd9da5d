// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const (
	maxDesk      = 30 * time.Millisecond // of a command, as a process
	minDocuments = 1000                  // a second
)

// printDesk times what is done at a desk, or by a control plane for every order:
// the making of user-data, by the library or by the program, and the opening of an
// envelope.
func printDesk(dir string) error {
	identity, recipient, err := seal.GenerateX25519()
	if err != nil {
		return err
	}
	each, err := documents(recipient)
	if err != nil {
		return err
	}
	key, envelope := filepath.Join(dir, "key.txt"), filepath.Join(dir, "card.age")
	if err := os.WriteFile(key, []byte(identity+"\n"), 0o600); err != nil {
		return err
	}
	if err := sealedCard(envelope, recipient); err != nil {
		return err
	}
	program := filepath.Join(dir, "totpctl")
	if out, err := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./cmd/totpctl").CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	fmt.Printf("\n%-28s %12s %12s %12s\n", "at a desk", "CPU", "wall", "limit")
	for _, args := range [][]string{
		{"user-data", "--user", "alice", "--recipient", recipient},
		{"open", "-i", key, envelope},
	} {
		cpu, wall, err := timed(program, args...)
		if err != nil {
			return err
		}
		fmt.Printf("%-28s %12s %12s %12s %s\n", "totpctl "+args[0], cpu, wall, maxDesk, met(wall <= maxDesk))
	}
	fmt.Printf("%-28s %12s, %d documents a second (limit: %d) %s\n", "package cloudinit", each.Round(time.Microsecond), time.Second/each, minDocuments, met(time.Second/each >= minDocuments))
	return nil
}

// documents returns how long package cloudinit needs for a document.
func documents(recipient string) (time.Duration, error) {
	spec := cloudinit.Spec{Issuer: "Example Hosting", Users: []cloudinit.User{{Name: "alice", Recipients: []string{recipient}}}}
	const docs = 2000
	start := time.Now()
	for i := range docs {
		spec.Token = cloudinit.Token([16]byte{byte(i), byte(i >> 8)})
		if _, err := spec.Document(); err != nil {
			return 0, err
		}
	}
	return time.Since(start) / docs, nil
}

// sealedCard writes an envelope like those of the agent.
func sealedCard(name, recipient string) error {
	e, err := otp.New(otp.Params{Issuer: "Example Hosting", Account: "alice@web-1", BackupCodes: 8}, rand.Reader)
	if err != nil {
		return err
	}
	to, err := seal.ParseRecipient(recipient)
	if err != nil {
		return err
	}
	text, err := card.Card{
		V: 1, Type: card.Type, ID: "k5ccmyhxhx4hyt4ssw3zfkzg6u", Generation: 1, InstanceID: "i-0a1b2c3d", Hostname: "web-1", User: "alice",
		Issuer: "Example Hosting", Created: time.Now().UTC().Truncate(time.Second), OTPAuth: e.URI, Secret: e.Secret,
		Algorithm: "SHA1", Digits: 6, Period: 30, BackupCodes: e.BackupCodes, Agent: "0.1.0",
		Recipients: []string{to.Hash()},
	}.Text()
	if err != nil {
		return err
	}
	sealed, err := seal.Seal(text, []seal.Recipient{to})
	if err != nil {
		return err
	}
	return os.WriteFile(name, sealed, 0o600)
}

// timed returns the medians of several runs of a program.
func timed(program string, args ...string) (cpu, wall time.Duration, err error) {
	var walls, cpus []time.Duration
	for range runs {
		cmd := exec.Command(program, args...)
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, 0, fmt.Errorf("%s %s: %w\n%s", filepath.Base(program), args[0], err, out)
		}
		walls = append(walls, time.Since(start))
		cpus = append(cpus, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())
	}
	slices.Sort(walls)
	slices.Sort(cpus)
	return cpus[runs/2].Round(10 * time.Microsecond), walls[runs/2].Round(10 * time.Microsecond), nil
}
