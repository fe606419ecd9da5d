// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
)

// TestFullDiskIsTold: where the PAM module cannot rewrite a state file, check and status
// report it, and real logins show that they are right: the right code and a backup code are
// refused, and are taken again once the problem is ended.
func TestFullDiskIsTold(t *testing.T) {
	t.Parallel()
	const pam = "/var/lib/google-authenticator"
	for _, r := range rootfs.Debians {
		for name, tt := range map[string]struct {
			broken, mended string
			code           string
		}{
			"full":      {fmt.Sprintf(small, "64k") + "cat /dev/zero >/disk/filler~ || :", "rm /disk/filler~", enroll.CodeDiskFull},
			"no inodes": {fmt.Sprintf(small, "1m") + "i=0; while touch /disk/$i~ 2>/dev/null; do i=$((i+1)); done", "rm /disk/[0-9]*~", enroll.CodeDiskFull},
			"read-only": {"mount --bind " + pam + " " + pam + " && mount -o remount,bind,ro " + pam, "umount " + pam, enroll.CodeDiskReadOnly},
		} {
			if name != "full" && r.Suite != rootfs.Debian12.Suite {
				continue // the module is the same
			}
			t.Run(r.Suite+", "+name, func(t *testing.T) {
				t.Parallel()
				m := newMachineOf(t, r)
				cards := m.firstBoot()
				server := m.serve(cards["alice"])
				codes := login.NewCodes(cards["alice"].Secret, cards["alice"].BackupCodes)
				if got := m.told(); len(got) != 0 {
					t.Errorf("before: %v", got)
				}
				m.must("sh", "-euc", tt.broken)
				if got := m.told(); !slices.Equal(got, []string{"check " + tt.code, "status " + tt.code}) {
					t.Errorf("check and status say %q", got)
				}
				if got := m.enters(server, cards["alice"], codes); got != login.Refused {
					t.Errorf("with a right code: %v, so the warning is wrong", got)
				}
				if got := m.tryCode(server, "bob", cards["bob"].BackupCodes[0]); got != login.Refused {
					t.Errorf("with a backup code: %v, so the warning is wrong", got)
				}
				m.must("sh", "-euc", tt.mended)
				if got := m.told(); len(got) != 0 && !slices.Equal(got, []string{"status " + enroll.CodeDiskLow}) {
					t.Errorf("after: %q", got)
				}
				if got := m.enters(server, cards["alice"], codes); got != login.In {
					t.Errorf("after: %v", got)
				}
				if got := m.tryCode(server, "bob", cards["bob"].BackupCodes[0]); got != login.In {
					t.Errorf("after, with the backup code: %v", got)
				}
			})
		}
	}
}

// told returns what check and status report about the disk.
func (m *machine) told() (all []string) {
	m.t.Helper()
	s := m.agent("check", "--json")
	var findings []bake.Finding
	if err := json.Unmarshal([]byte(s.out), &findings); err != nil {
		m.t.Fatalf("%v: %s", err, s.err)
	}
	code := 0
	for _, f := range findings {
		if f.Severity != bake.Warning && f.Severity != bake.Notice {
			if code = max(code, 1); f.Severity == bake.Critical {
				code = 3
			}
			all = append(all, "check "+f.ID)
		}
	}
	if s.code != code {
		m.t.Errorf("check: exit %d with %v", s.code, all)
	}
	var st status
	m.statusInto(&st)
	for _, p := range st.Problems {
		if strings.HasPrefix(p.Code, "disk-") {
			all = append(all, "status "+p.Code)
		}
	}
	return all
}
