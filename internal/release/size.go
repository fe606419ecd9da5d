// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// The limits of an agent in bytes, and by how many percent it may grow without a
// word in the changelog.
const (
	maxAgent  = 11_000_000
	maxPacked = 4_500_000
	maxGrowth = 5
)

var (
	errTooLarge = errors.New("is larger than an agent may be")
	errGrown    = fmt.Errorf("has grown by more than %d %%", maxGrowth)
	errNoSize   = errors.New("the changelog does not state the agents' size")
)

// agentSize is the size of one agent in bytes.
type agentSize struct {
	arch          string
	plain, packed int64
}

func size(context.Context) error {
	var now []agentSize
	for _, arch := range []string{"amd64", "arm64"} {
		plain, err := os.Stat("bin/totp-agent-linux-" + arch)
		if err != nil {
			return err
		}
		packed, err := os.Stat("internal/agentbin/agents/totp-agent-linux-" + arch + ".gz")
		if err != nil {
			return err
		}
		now = append(now, agentSize{arch, plain.Size(), packed.Size()})
	}
	changelog, err := os.ReadFile("CHANGELOG.md")
	if err != nil {
		return err
	}
	fmt.Println(sizeLine(now))
	return checkSize(now, string(changelog))
}

// sizeLine is the line that the changelog states the size with.
func sizeLine(now []agentSize) string {
	var parts []string
	for _, a := range now {
		parts = append(parts, fmt.Sprintf("%s %d kB (packed %d kB)", a.arch, (a.plain+999)/1000, (a.packed+999)/1000))
	}
	return "- Size of the agent: " + strings.Join(parts, ", ") + "."
}

var sizeEntry = regexp.MustCompile(`(?m)^- Size of the agent: .*$`)

// checkSize compares with the limits, and with the newest statement in the
// changelog.
func checkSize(now []agentSize, changelog string) error {
	for _, a := range now {
		if a.plain > maxAgent || a.packed > maxPacked {
			return fmt.Errorf("agent for %s: %d bytes, packed %d: %w: %d, packed %d", a.arch, a.plain, a.packed, errTooLarge, maxAgent, maxPacked)
		}
	}
	stated := sizeEntry.FindString(changelog)
	for _, a := range now {
		m := regexp.MustCompile(a.arch + ` (\d+) kB \(packed (\d+) kB\)`).FindStringSubmatch(stated)
		if m == nil {
			return fmt.Errorf("agent for %s: %w; add this line to the newest section of CHANGELOG.md:\n%s", a.arch, errNoSize, sizeLine(now))
		}
		for i, got := range []int64{a.plain, a.packed} {
			kB, err := strconv.ParseInt(m[i+1], 10, 64)
			if err != nil {
				return err
			}
			if got*100 > kB*1000*(100+maxGrowth) {
				return fmt.Errorf("agent for %s: %d bytes, after %d kB: %w; if that is worth it, say what for in CHANGELOG.md, with this line:\n%s", a.arch, got, kB, errGrown, sizeLine(now))
			}
		}
	}
	return nil
}
