// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build unix

package target_test

import (
	"bytes"
	"os"
	"path"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// A link in a directory that totp-deliver.service may write leads nowhere: no secret is
// read through it, and nothing is written, whether or not directories are held.
func TestConfined(t *testing.T) {
	const secret = target.PAMStateDir + "/alice"
	for _, dir := range []string{target.Outbox, target.Ready, target.Receipts, target.Envelopes, target.BannerDir} {
		for _, held := range [][]string{nil, {target.VarLib}, {target.VarLib, target.StateDir, target.Outbox}} {
			for _, link := range []string{secret, ".." + secret, "../../../../../../../.." + secret} {
				tg, _ := targettest.New(t)
				targettest.Put(t, tg, secret, "SECRET", 0o400)
				for _, d := range []string{target.Ready, target.Receipts, target.Envelopes, target.BannerDir} {
					must(t, os.MkdirAll(tg.Root()+d, 0o755))
				}
				must(t, os.Symlink(link, tg.Root()+dir+"/file"))
				must(t, os.Symlink(path.Dir(link), tg.Root()+dir+"/dir"))
				view := tg.View()
				must(t, view.Hold(held...))
				for _, name := range []string{"/file", "/dir/alice"} {
					if b, err := view.ReadFile(dir + name); err == nil || bytes.Contains(b, []byte("SECRET")) {
						t.Errorf("%s%s -> %s, held %q: read %q, %v", dir, name, link, held, b, err)
					}
				}
				if err := view.WriteFile(dir+"/dir/new", []byte("x"), 0o600); err == nil {
					t.Errorf("%s/dir -> %s, held %q: was written", dir, path.Dir(link), held)
				}
				_ = view.Remove(dir + "/dir/alice")
				_ = view.RemoveAll(dir + "/dir")
				_ = view.Rename(dir+"/dir/alice", dir+"/taken")
				if b, err := os.ReadFile(tg.Root() + secret); err != nil || string(b) != "SECRET" {
					t.Errorf("%s, held %q: the file behind the link: %q, %v", dir, held, b, err)
				}
				// What is no link is as it always was, also after the directory was replaced.
				for range 2 {
					must(t, view.WriteFile(dir+"/plain", []byte("x"), 0o600))
					if b, err := view.ReadFile(dir + "/plain"); err != nil || string(b) != "x" {
						t.Errorf("%s, held %q: %q, %v", dir, held, b, err)
					}
					if held != nil {
						break
					}
					must(t, os.RemoveAll(tg.Root()+dir))
					must(t, os.MkdirAll(tg.Root()+dir, 0o755))
				}
				must(t, view.Release())
			}
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
