// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package targettest has the fakes of package target for tests: a root in a
// temporary directory, and a recorder in place of the guest's commands. It
// never runs anything.
package targettest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// New opens a target on an empty temporary directory, with a Recorder for its
// commands.
func New(tb testing.TB) (*target.Target, *Recorder) {
	tb.Helper()
	t, err := target.Open(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { t.Close() })
	r := new(Recorder)
	t.SetRunner(r)
	return t, r
}

// Put writes a file of the guest plainly, and the directories on the way.
func Put(tb testing.TB, t *target.Target, name, content string, mode os.FileMode) {
	tb.Helper()
	p := filepath.Join(t.Root(), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(p, mode); err != nil {
		tb.Fatal(err)
	}
}

// An Answer is what a faked command says.
type Answer struct {
	Stdout, Stderr string
	Err            error
}

// A Recorder answers commands and keeps them.
type Recorder struct {
	// Handle answers a command; nil answers everything with nothing.
	Handle func(argv []string) Answer

	mu    sync.Mutex
	calls [][]string
}

// Run implements [target.Runner].
func (r *Recorder) Run(ctx context.Context, argv []string) (stdout, stderr []byte, err error) {
	r.mu.Lock()
	r.calls = append(r.calls, append([]string(nil), argv...))
	r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if r.Handle == nil {
		return nil, nil, nil
	}
	a := r.Handle(argv)
	return []byte(a.Stdout), []byte(a.Stderr), a.Err
}

// Calls are the commands so far, each joined by blanks.
func (r *Recorder) Calls() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var cs []string
	for _, c := range r.calls {
		cs = append(cs, strings.Join(c, " "))
	}
	return cs
}
