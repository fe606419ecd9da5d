// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package packer

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// errNoVersion means that a program did not answer as Packer does: others are
// called packer as well.
var errNoVersion = errors.New("does not answer as HashiCorp's Packer")

// The oldest Packer that installs a plugin from a path.
const (
	oldestMajor = 1
	oldestMinor = 11
)

var versionLine = regexp.MustCompile(`(?m)^Packer v((\d+)\.(\d+)\.(\d+)\S*)$`)

func askVersion(ctx context.Context, program string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "version")
	cmd.Env = append(cmd.Environ(), "CHECKPOINT_DISABLE=1")
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", program, err)
	}
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("%s: %w", program, errNoVersion)
	}
	return string(m[1]), nil
}

func newEnough(version string) bool {
	m := versionLine.FindStringSubmatch("Packer v" + version)
	if m == nil {
		return false
	}
	major, err1 := strconv.Atoi(m[2])
	minor, err2 := strconv.Atoi(m[3])
	if err1 != nil || err2 != nil {
		return false
	}
	return major > oldestMajor || major == oldestMajor && minor >= oldestMinor
}
