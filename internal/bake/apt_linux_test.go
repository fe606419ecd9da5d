// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// inRoot runs the guest's commands by others of the host, such as chroot.
type inRoot []string

func (r inRoot) Run(ctx context.Context, argv []string) (stdout, stderr []byte, err error) {
	cmd := exec.CommandContext(ctx, r[0], append(r[1:len(r):len(r)], argv...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.Bytes(), errs.Bytes(), err
}

// What each Debian's own apt says when it cannot install the module reaches
// whoever runs the bake, and nothing is changed.
func TestRootfsApt(t *testing.T) {
	patience, pause := aptPatience, aptPause
	aptPatience, aptPause = 1500*time.Millisecond, 100*time.Millisecond
	t.Cleanup(func() { aptPatience, aptPause = patience, pause })
	for _, dir := range rootfsDirs(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			tg := rootfs(t, dir)
			o := realOptions(t)
			root := inRoot{"chroot", tg.Root()}
			for _, argv := range [][]string{
				{"dpkg", "--purge", "libpam-google-authenticator"},
				{"sh", "-c", "rm -rf /var/lib/apt/lists/*; mkdir -p /var/lib/apt/lists/partial"}, // as in a cloud's image
			} {
				if _, stderr, err := root.Run(t.Context(), argv); err != nil {
					t.Fatalf("%q: %v\n%s", argv, err, stderr)
				}
			}
			before := snapshotParts(t, tg, false)
			for _, test := range []struct {
				name    string
				prepare func(t *testing.T)
				runner  target.Runner
				want    []string
			}{
				{"offline", nil, append(inRoot{"unshare", "--net"}, root...), []string{"libpam-google-authenticator", "apt-get update had said: ", "resolv"}},
				{"locked", func(t *testing.T) { lockFile(t, filepath.Join(tg.Root(), "/var/lib/apt/lists/lock")) }, root, []string{"/var/lib/apt/lists/lock"}},
				{"gone", func(t *testing.T) {
					if err := errors.Join(tg.RemoveAll("/etc/apt/sources.list.d"), tg.Mkdir("/etc/apt/sources.list.d", 0o755), tg.WriteFile("/etc/apt/sources.list", nil, 0o644)); err != nil {
						t.Fatal(err)
					}
					before = snapshotParts(t, tg, false)
				}, root, []string{"E: ", "libpam-google-authenticator"}},
			} {
				t.Run(test.name, func(t *testing.T) {
					if test.prepare != nil {
						test.prepare(t)
					}
					tg.SetRunner(test.runner)
					_, err := Run(t.Context(), tg, o)
					ce, ok := errors.AsType[*target.CommandError](err)
					if !ok || ce.Argv[0] != target.AptGet {
						t.Fatalf("got %v", err)
					}
					for _, want := range test.want {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("no %q in: %v", want, err)
						}
					}
					if d := before.diff(snapshotParts(t, tg, false)); d != nil {
						t.Errorf("changed:\n%s", strings.Join(d, "\n"))
					}
				})
			}
		})
	}
}

// lockFile holds a lock of a file as apt does.
func lockFile(t *testing.T, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &syscall.Flock_t{Type: syscall.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
}
