// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package once_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/once"
)

func TestMake(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cache", "thing")
	failed := errors.New("failed")
	err := once.Make(name, "a thing", "a moment", io.Discard, func(part string) error {
		return errors.Join(os.WriteFile(part, []byte("half"), 0o600), failed)
	})
	if !errors.Is(err, failed) {
		t.Fatalf("error %v, want %v", err, failed)
	}
	for _, n := range []string{name, name + ".part"} {
		if _, err := os.Stat(n); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v, want nothing there", n, err)
		}
	}
	var made int
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			err := once.Make(name, "a thing", "a moment", io.Discard, func(part string) error {
				made++
				return os.WriteFile(part, []byte("whole"), 0o600)
			})
			if got, rerr := os.ReadFile(name); err != nil || rerr != nil || string(got) != "whole" {
				t.Errorf("%q, %v, %v", got, err, rerr)
			}
		})
	}
	wg.Wait()
	if made != 1 {
		t.Errorf("made %d times", made)
	}
}
