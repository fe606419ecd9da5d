// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package rootfs_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

func newRoot(t *testing.T) *rootfs.Root {
	t.Helper()
	if err := rootfs.Available(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	r, err := rootfs.New(t.Context(), rootfs.Options{Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func TestRootIsAChroot(t *testing.T) {
	r := newRoot(t)
	out, err := r.Shell(t.Context(), `. /etc/os-release; echo $VERSION_ID $(hostname) $(id -u); ls -d /dev/pts/ptmx; systemd-detect-virt --chroot && echo chroot`)
	if err != nil {
		t.Fatal(err)
	}
	if want := "12 rootfs-lab 0\n/dev/pts/ptmx\nchroot\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
	if _, err := os.Stat(r.Path("/usr/lib/x86_64-linux-gnu/security/pam_google_authenticator.so")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the PAM module is there before bake: %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	r := newRoot(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := r.Shell(ctx, `setsid sh -c 'exec sleep 4711' >/dev/null 2>&1 & echo $!`); err != nil {
		t.Fatal(err)
	}
	for !processNamed(t, "4711") {
		if ctx.Err() != nil {
			t.Fatal("the background process is not running before Close")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if processNamed(t, "4711") {
		t.Error("a process outlives its root")
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), ".cache/rootfs/mnt") {
		t.Error("a mount reached the host")
	}
	if _, err := os.Stat(r.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory outlives its root: %v", err)
	}
}

func TestCloneIsApart(t *testing.T) {
	r := newRoot(t)
	if _, err := r.Shell(t.Context(), "echo original > /etc/mark"); err != nil {
		t.Fatal(err)
	}
	c, err := r.Clone()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, err := c.Shell(t.Context(), "cat /etc/mark; echo clone > /etc/mark")
	if err != nil || out != "original\n" {
		t.Fatalf("clone has %q, %v", out, err)
	}
	if out, _ := r.Run(t.Context(), "cat", "/etc/mark"); out != "original\n" {
		t.Errorf("writing in the clone changed the original: %q", out)
	}
}

func TestSSHDAnswersAndStops(t *testing.T) {
	r := newRoot(t)
	s, err := r.StartSSHD(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !s.Running() || !strings.Contains(s.Log(), "Server listening on 127.0.0.1") {
		t.Errorf("running %v, log %q", s.Running(), s.Log())
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if s.Running() {
		t.Error("still running after Stop")
	}
	if keys, err := r.HostKeys(); err != nil || len(keys) < 2 {
		t.Errorf("host keys %v, %v", keys, err)
	}
}

func TestSSHDWithABrokenConfigurationIsAnError(t *testing.T) {
	r := newRoot(t)
	if err := os.WriteFile(r.Path("/etc/ssh/sshd_config.d/bad.conf"), []byte("NoSuchKeyword yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := r.StartSSHD(t.Context()); err == nil {
		_ = s.Stop()
		t.Error("started")
	}
}

func TestSyslogIsCaught(t *testing.T) {
	r := newRoot(t)
	if _, err := r.Run(t.Context(), "logger", "-p", "auth.info", "hello from inside"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); !strings.Contains(r.Syslog(), "hello from inside"); {
		if time.Now().After(end) {
			t.Fatalf("syslog %q", r.Syslog())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// processNamed reports whether a process of the host has arg as an argument.
func processNamed(t *testing.T, arg string) bool {
	t.Helper()
	names, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data, _ := os.ReadFile(name)
		if strings.Contains("\x00"+string(data), "\x00"+arg+"\x00") {
			return true
		}
	}
	return false
}
