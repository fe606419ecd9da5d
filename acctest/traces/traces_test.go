// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package traces_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/traces"
)

func TestFind(t *testing.T) {
	clean := func(t *testing.T) string {
		dir := t.TempDir()
		touch(t, dir, "etc/passwd", "root:x:0:0::/root:/bin/sh\n")
		touch(t, dir, "var/log/wtmp", "")
		touch(t, dir, "home/alice/.profile", "umask 077\n")
		for _, empty := range []string{"tmp", "var/lib/apt/lists/partial", "var/log/journal/0123", "var/lib/systemd"} {
			if err := os.MkdirAll(filepath.Join(dir, empty), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	if err := traces.Find(clean(t)); err != nil {
		t.Errorf("of nothing: %v", err)
	}
	for name, text := range map[string]string{
		"var/lib/systemd/random-seed":                   "x",
		"var/lib/dhcp/dhclient.eth0.leases":             "x",
		"var/lib/NetworkManager/internal-1-eth0.lease":  "x",
		"var/log/journal/0123/system.journal":           "",
		"var/log/journal/0123/system@1.journal~":        "x",
		"var/log/auth.log":                              "x",
		"var/log/apt/history.log":                       "x",
		"root/.bash_history":                            "",
		"home/alice/.python_history":                    "x",
		"home/alice/.lesshst":                           "",
		"var/lib/apt/lists/deb.debian.org_InRelease":    "x",
		"var/lib/apt/lists/partial/deb.debian.org_half": "",
		"tmp/key":     "x",
		"etc/shadow-": "x",
		"var/tmp/a/b": "",
	} {
		dir := clean(t)
		touch(t, dir, name, text)
		if err := traces.Find(dir); !errors.Is(err, traces.ErrTrace) || !strings.HasSuffix(err.Error(), ": /"+name) {
			t.Errorf("of %s: %v", name, err)
		}
	}
}

func touch(t *testing.T, dir, name, text string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
