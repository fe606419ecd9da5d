// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package selftest proves by real logins that a baked image lets the right
// people in and nobody else.
//
// It starts the image's own sshd with the image's installed configuration, unit
// options and PAM service on a loopback port, makes throw-away users, keys and
// secrets, and logs in: with key and code, and in every way that must not work.
// What sshd and PAM did is compared step by step with what they are to do.
//
// # Promises
//
// All of it happens in a process of its own in new mount, PID, network and IPC
// namespaces, on a file system that is read-only there but for memory. It ends
// with the process that called [Run], also when that is killed: no user, file,
// mount, process or port is left, and no other process of the machine sees one
// of them. Secrets and keys are in that memory alone, and neither in a row nor
// in a log line.
//
// # Limits
//
// It needs Linux, root and the right to make namespaces. The host's kernel
// writes what it audits where auditd runs. A rule that is about a network
// address is tried from the networks that the policy exempts and from loopback
// only.
package selftest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// How a self-test ends when it does not pass.
var (
	// ErrFailed means that a row has been seen to be other than expected.
	ErrFailed = errors.New("this image does not log people in as its policy says")
	// ErrIncomplete means that it could not be told.
	ErrIncomplete = errors.New("the self-test could not be run to its end")
	// ErrNamespaces means that the process may not make namespaces.
	ErrNamespaces = errors.New("no right to make namespaces")
	// ErrNotBaked means that there is no policy in the system.
	ErrNotBaked = errors.New("this system is not baked")
)

// A Row is one login, or one look, and what came of it.
type Row struct {
	bake.SelfTestRow
	Millis int64    `json:"ms"`            // how long it took
	Log    []string `json:"log,omitempty"` // where it failed: what sshd and PAM logged about it
	Number int      `json:"-"`             // its place among all
}

// Options say how to test.
type Options struct {
	// Self is a command that calls [Inside]: the calling program's own.
	Self []string
	// Log gets one line a row, and those that sshd logged of rows that fail.
	Log io.Writer
}

// Run tests the running system, and writes the rows into its report. It returns
// the rows that there are along with an error, which is one of this package's
// Err values.
func Run(ctx context.Context, t *target.Target, o Options) ([]Row, error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	text, err := t.ReadFile(target.ImagePolicy)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w; run: totp-agent bake", target.ImagePolicy, ErrNotBaked, err)
	}
	p, err := policy.Parse(policy.Image, target.ImagePolicy, text)
	if err != nil {
		return nil, err
	}
	if !t.Live() {
		return nil, fmt.Errorf("%w: it logs in to the running system only", ErrIncomplete)
	}
	rows, err := outside(ctx, o, order{Policy: *p})
	// Some run beside each other, and the report of two runs is to be the same.
	slices.SortStableFunc(rows, func(a, b Row) int { return cmp.Compare(a.Number, b.Number) })
	// A report that says that all is well is not to outlive a run that says
	// otherwise; one that there is not is nobody's to make here.
	var plain []bake.SelfTestRow
	for _, r := range rows {
		plain = append(plain, r.SelfTestRow)
	}
	if t.Exists(target.Report) {
		err = errors.Join(err, bake.ReportSelfTest(t, plain))
	}
	if err != nil {
		return rows, err
	}
	return rows, verdict(rows)
}

// verdict names the rows that failed.
func verdict(rows []Row) error {
	var bad []string
	for _, r := range rows {
		if !r.OK {
			bad = append(bad, fmt.Sprintf("%q", r.Name))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("self-test: %s: %w", strings.Join(bad, ", "), ErrFailed)
}

// say prints a row for people.
func say(w io.Writer, r Row) {
	if r.OK {
		fmt.Fprintf(w, "selftest: %s: %s (%d ms)\n", r.Name, r.Seen, r.Millis)
		return
	}
	fmt.Fprintf(w, "selftest: FAILED: %s (user %q)\nselftest:   expected: %s\nselftest:   seen:     %s\n", r.Name, r.User, r.Expected, r.Seen)
	for _, line := range r.Log {
		fmt.Fprintf(w, "selftest:   log: %s\n", line)
	}
}

// An order is what the process inside is told.
type order struct{ Policy policy.Policy }

// A message is what it answers, one a line.
type message struct {
	Row    *Row   `json:",omitempty"`
	Number int    `json:",omitempty"`
	Error  string `json:",omitempty"`
	Done   bool   `json:",omitempty"`
}
