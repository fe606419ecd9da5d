// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// aptPatience is how long another package manager may hold its lock, as the
// timers of a machine that has just booted do.
var aptPatience = 5 * time.Minute

// aptPause is the time between two tries for a lock that apt does not wait for
// by itself.
var aptPause = 3 * time.Second

// aptInstall installs packages from lists that are new.
func (b *baker) aptInstall(ctx context.Context, names []string) error {
	lists, err := b.apt(ctx, "update")
	if err != nil {
		return err
	}
	_, err = b.apt(ctx, append([]string{"install", "--no-install-recommends",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"}, names...)...)
	// apt-get update succeeds without a network too, and install then knows no
	// package: what it said is the reason.
	if err != nil && lists != "" {
		return fmt.Errorf("%w; apt-get update had said: %s", err, lists)
	}
	return err
}

// apt runs apt-get, and returns its warnings and errors.
func (b *baker) apt(ctx context.Context, args ...string) (complaints string, err error) {
	argv := append([]string{target.AptGet, "-q", "-y",
		"-o", fmt.Sprintf("DPkg::Lock::Timeout=%d", int(aptPatience.Seconds())),
		"-o", "Acquire::Retries=3"}, args...)
	for end := time.Now().Add(aptPatience); ; {
		_, stderr, err := b.t.Output(ctx, argv...)
		// update does not wait for the lock of the lists.
		ce, ok := errors.AsType[*target.CommandError](err)
		if !ok || !strings.Contains(ce.Stderr, "Could not get lock") || time.Now().After(end) {
			return aptComplaints(string(stderr)), err
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(aptPause):
		}
	}
}

// maxComplaints are enough to see what is wrong: one for each source, and more.
const maxComplaints = 8

// aptComplaints are the last warnings and errors in what apt-get wrote, in one
// line.
func aptComplaints(text string) string {
	var cs []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "W: ") || strings.HasPrefix(line, "E: ") {
			cs = append(cs, strings.TrimSpace(line))
		}
	}
	return strings.Join(cs[max(0, len(cs)-maxComplaints):], " | ")
}
