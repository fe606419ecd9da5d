// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"sync"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/tool"
)

// servers fetches the servers that the recipes' tests ask, into the cache: they
// are not to run on this machine. What is built of Go modules is built when a test
// wants it.
func servers(ctx context.Context, log io.Writer) error {
	cache, err := rootfs.CacheDir()
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	wg.Go(func() {
		_, errs[0] = tool.NPM(ctx, filepath.Join(filepath.Dir(cache), "acctest", "recipes", "azure"), cache, log)
	})
	wg.Go(func() {
		for _, name := range []string{"nginx", "webhook"} {
			_, err := tool.Debian(ctx, cache, name, log)
			errs[1] = errors.Join(errs[1], err)
		}
	})
	wg.Wait()
	return errors.Join(errs...)
}
