// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// auditor has ssh-audit in the newest version that a Debian release has: older ones
// do not know the algorithms of OpenSSH 9.9 and later.
var auditor = sync.OnceValues(func() (*rootfs.Root, error) {
	root, err := rootfs.New(context.Background(), rootfs.Options{Recipe: rootfs.Debian13, Log: os.Stderr})
	if err == nil {
		_, err = root.Shell(context.Background(), "apt-get install --yes --quiet --no-install-recommends --no-download ssh-audit")
	}
	return root, err
})

// ssh-audit judges what each sshd offers, by the lists of its own hardening
// guides; and without a policy finds nothing that fails.
func TestSSHAudit(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		recipe     rootfs.Recipe
		algorithms string
		policy     string   // of testdata; empty: none fits
		differs    []string // what the policy finds different, and why that is meant is said in docs/rationale.md
	}{
		{rootfs.Debian11, "compatible", "", nil}, // ssh-audit has no policy for Debian 11
		{rootfs.Debian12, "compatible", "hardened-debian-12", nil},
		{rootfs.Debian13, "compatible", "hardened-debian-13", []string{"Key exchanges"}},
		{rootfs.Debian13, "strict", "hardened-debian-13", nil},
	} {
		t.Run(tt.recipe.Suite+" "+tt.algorithms, func(t *testing.T) {
			t.Parallel()
			m := newGuestOf(t, tt.recipe)
			if _, err := bakeRoot(t.Context(), m.Root, m.img.policy+"sshd: {algorithms: "+tt.algorithms+"}\n"); err != nil {
				t.Fatal(err)
			}
			cards := m.firstBoot()
			server := m.serve(cards["alice"])
			audit, err := auditor()
			if err != nil {
				t.Fatal(err)
			}
			where := []string{"-p", fmt.Sprint(server.Port)}

			s := run(t, audit.Command(t.Context(), append([]string{"ssh-audit", "-j"}, append(where, server.Host)...)...))
			var found struct {
				Kex, Key, Enc, Mac []struct {
					Algorithm string
					Notes     struct{ Fail []string }
				}
			}
			if err := json.Unmarshal([]byte(s.out), &found); err != nil || len(found.Kex) == 0 {
				t.Fatalf("%v: %s%s", err, s.out, s.err)
			}
			for _, list := range [][]struct {
				Algorithm string
				Notes     struct{ Fail []string }
			}{found.Kex, found.Key, found.Enc, found.Mac} {
				for _, a := range list {
					if len(a.Notes.Fail) > 0 {
						t.Errorf("%s fails: %q", a.Algorithm, a.Notes.Fail)
					}
				}
			}
			if tt.policy == "" {
				return
			}
			text, err := os.ReadFile(filepath.Join("testdata", tt.policy+".policy"))
			if err != nil {
				t.Fatal(err)
			}
			file := "/tmp/" + tt.policy + "-" + fmt.Sprint(server.Port)
			if err := os.WriteFile(audit.Path(file), text, 0o644); err != nil {
				t.Fatal(err)
			}
			s = run(t, audit.Command(t.Context(), append([]string{"ssh-audit", "-n", "-P", file}, append(where, server.Host)...)...))
			var differs []string
			for line := range strings.Lines(s.out) {
				if name, ok := strings.CutSuffix(strings.TrimSpace(line), " did not match."); ok {
					name = strings.TrimLeft(name, "* ")
					differs = append(differs, name)
				}
			}
			slices.Sort(differs)
			if (s.code == 0) != (tt.differs == nil) || !slices.Equal(differs, tt.differs) {
				t.Errorf("exit %d, differs in %q, want %q\n%s%s", s.code, differs, tt.differs, s.out, s.err)
			}
		})
	}
}

// On OpenSSH 8.4 nothing post-quantum is left for strict, and the bake says so
// before it has changed anything.
func TestStrictOnDebian11(t *testing.T) {
	t.Parallel()
	m := newGuestOf(t, rootfs.Debian11)
	_, err := bakeRoot(t.Context(), m.Root, m.img.policy+"sshd: {algorithms: strict}\n")
	if err == nil || !strings.Contains(err.Error(), "KexAlgorithms") || !strings.Contains(err.Error(), "compatible") {
		t.Errorf("%v", err)
	}
	if there := m.exist(agentPath, "/etc/ssh/sshd_config.d/00-00-totp.conf"); there != nil {
		t.Errorf("there is %q", there)
	}
}
