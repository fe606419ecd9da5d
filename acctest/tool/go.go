// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package tool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/once"
)

// Go returns the program of a package, by its import path, of the module in the
// directory source. It is built, which takes minutes, where the cache has none of
// these versions, and of this program where it is the module's own.
func Go(ctx context.Context, source, cache, pkg string, log io.Writer) (string, error) {
	own, err := filepath.Glob(filepath.Join(source, "*.go"))
	if err != nil {
		return "", err
	}
	key, err := keyOf(append([]string{filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum")}, own...)...)
	if err != nil {
		return "", err
	}
	// go build takes it as relative to source.
	if cache, err = filepath.Abs(cache); err != nil {
		return "", err
	}
	program := filepath.Join(cache, "tools", key, path.Base(pkg))
	return program, once.Make(program, path.Base(pkg)+" from its module", "minutes", log, func(part string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-C", source, "-trimpath", "-buildvcs=false",
			"-ldflags=-s -w", "-o", part, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOFLAGS=", "GOWORK=off")
		return run(cmd, "go build "+pkg)
	})
}

// run runs a command, and tells the end of what it has printed where it fails.
func run(cmd *exec.Cmd, name string) error {
	out := &Tail{Max: 3000}
	cmd.Stdout, cmd.Stderr = out, out
	if err := child.Run(cmd, syscall.SIGTERM); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, strings.TrimSpace(out.String()))
	}
	return nil
}

// keyOf hashes files and the Go version.
func keyOf(names ...string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d\n%s", len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// Tail keeps the end of what is written to it, Max bytes at most.
type Tail struct {
	Max  int
	data []byte
}

func (t *Tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - t.Max; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(p), nil
}

// String returns what is kept.
func (t *Tail) String() string { return string(t.data) }
