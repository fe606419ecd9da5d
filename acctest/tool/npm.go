// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package tool

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/once"
)

// NPM returns a directory that holds package.json and package-lock.json of the
// directory source, and what they name, installed: no package's own script is run.
func NPM(ctx context.Context, source, cache string, log io.Writer) (string, error) {
	names := []string{"package.json", "package-lock.json"}
	key, err := keyOf(filepath.Join(source, names[0]), filepath.Join(source, names[1]))
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tools", key, filepath.Base(source))
	return dir, once.Make(dir, filepath.Base(source)+" from npm", "a minute", log, func(part string) error {
		if err := os.MkdirAll(part, 0o755); err != nil {
			return err
		}
		for _, name := range names {
			data, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(part, name), data, 0o644); err != nil {
				return err
			}
		}
		cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
		cmd.Dir = part
		return run(cmd, "npm ci")
	})
}
