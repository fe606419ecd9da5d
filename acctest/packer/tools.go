// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package packer

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

// tools builds programs out of the module acctest/tools.
type tools struct {
	module, cache string
	log           io.Writer
}

// build returns the program of a package, building it where the cache has none
// of these versions.
func (t tools) build(ctx context.Context, pkg string) (string, error) {
	source := filepath.Join(t.module, "acctest", "tools")
	key, err := keyOf(filepath.Join(source, "go.mod"), filepath.Join(source, "go.sum"))
	if err != nil {
		return "", err
	}
	program := filepath.Join(t.cache, "tools", key, path.Base(pkg))
	return program, once.Make(program, path.Base(pkg)+" from its module", "minutes", t.log, func(part string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-C", source, "-trimpath", "-buildvcs=false",
			"-ldflags=-s -w", "-o", part, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH, "GOFLAGS=", "GOWORK=off")
		out := &tail{max: 3000}
		cmd.Stdout, cmd.Stderr = out, out
		if err := child.Run(cmd, syscall.SIGTERM); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, strings.TrimSpace(out.String()))
		}
		return nil
	})
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
