// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package packer

import (
	"context"
	"io"
	"path/filepath"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/tool"
)

// tools builds programs out of the module acctest/tools.
type tools struct {
	module, cache string
	log           io.Writer
}

// build returns the program of a package, building it where the cache has none
// of these versions.
func (t tools) build(ctx context.Context, pkg string) (string, error) {
	return tool.Go(ctx, filepath.Join(t.module, "acctest", "tools"), t.cache, pkg, t.log)
}
