// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// nftablesUnit loads /etc/nftables.conf.
const nftablesUnit = "nftables.service"

// nftHook finds the hook and the policy of a base chain, nft(8).
var nftHook = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`hook\s+(input|output)\b[^;{}]*;(?:\s*policy\s+(\w+)\s*;)?`)
})

// nftDport finds what the ports of a rule are: one, a name, or a set of them.
var nftDport = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b(tcp|udp|th)\s+dport\s+(\{[^}]*\}|\S+)[^\n;]*`)
})

// nftNames are the names of /etc/services that people write.
var nftNames = map[int]string{22: "ssh", 123: "ntp"}

// nftBlocks tells in which words rules of nft's seem to block what is needed:
// a chain of that direction drops what no rule lets through, and no rule accepts
// the port. Empty: they do not, or that cannot be seen. Includes, sets with names
// and variables are not followed.
func nftBlocks(text string, n need) string {
	var lines []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		lines = append(lines, strings.TrimRight(line, "\n"))
	}
	text = strings.Join(lines, "\n")
	direction := "input"
	if n.out {
		direction = "output"
	}
	drops := false
	for _, m := range nftHook().FindAllStringSubmatch(text, -1) {
		drops = drops || m[1] == direction && m[2] == "drop"
	}
	if !drops {
		return ""
	}
	for _, m := range nftDport().FindAllStringSubmatch(text, -1) {
		if m[1] != n.proto && m[1] != "th" || !strings.Contains(m[0], "accept") && !strings.Contains(m[0], "jump") && !strings.Contains(m[0], "goto") {
			continue
		}
		if strings.ContainsAny(m[2], "@$") || nftHasPort(m[2], n.port) {
			return ""
		}
	}
	return fmt.Sprintf("drops what comes to its chain %s, and has no rule for %s", direction, n)
}

func nftHasPort(set string, port int) bool {
	return slices.ContainsFunc(strings.Split(strings.Trim(set, "{} "), ","), func(p string) bool {
		p = strings.TrimSpace(p)
		if p == nftNames[port] {
			return true
		}
		return portRange(p, "-", port)
	})
}

// portRange tells whether a port is in "22" or "20-25", with whatever stands
// between the ends.
func portRange(text, between string, port int) bool {
	first, last, ranged := strings.Cut(text, between)
	from, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	if !ranged {
		return from == port
	}
	to, err := strconv.Atoi(last)
	return err == nil && from <= port && port <= to
}
