// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// A build that somebody ends by Ctrl-C while the agent bakes has the bake go on, and
// nothing of the build's own is left when it is done.
func TestAnInterruptedPackerBuild(t *testing.T) {
	t.Parallel()
	m := newGuest(t)
	people := m.img.people
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	out := &awaited{text: "bake: pam: ", reached: interrupt}
	_, err := m.packerBuildTo(ctx, out, "root", block(people["alice"], people["bob"]), "")
	t.Logf("packer:\n%s", out)
	if !errors.Is(err, context.Canceled) || !out.done || strings.Contains(out.String(), "baked, ") {
		t.Fatalf("it was not interrupted: %v", err)
	}
	m.must("timeout", "120", "sh", "-c", `until [ -z "$(find /tmp /var/tmp -mindepth 1)" ]; do sleep 0.1; done`)
	m.must("sh", "-c", newMachineID)
	m.enrollAndLogIn()
}

// awaited keeps what is written, and calls reached when text has been.
type awaited struct {
	strings.Builder
	text    string
	reached func()
	done    bool
}

func (a *awaited) Write(p []byte) (int, error) {
	n, err := a.Builder.Write(p)
	if !a.done && strings.Contains(a.String(), a.text) {
		a.done = true
		a.reached()
	}
	return n, err
}
