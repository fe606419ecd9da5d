// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// TestCheckDisk mounts small file systems over the directories that are written to.
func TestCheckDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	isLive = func(*target.Target) bool { return true }
	t.Cleanup(func() { isLive = (*target.Target).Live })
	small := func(dir, then string) string {
		return `mount -t tmpfs -o size=64k,nr_inodes=16,mode=0700 tmpfs "$1` + dir + `"; ` + then
	}
	for name, tt := range map[string]struct {
		script string
		want   string
		bad    bool
	}{
		"full":             {small(target.PAMStateDir, `cat /dev/zero >"$1`+target.PAMStateDir+`/x~" || :`), "disk-full " + target.PAMStateDir, true},
		"no inodes":        {small(target.PAMStateDir, `i=0; while touch "$1`+target.PAMStateDir+`/$i~"; do i=$((i+1)); done`), "disk-full " + target.PAMStateDir, true},
		"read-only":        {small(target.PAMStateDir, `mount -o remount,ro "$1`+target.PAMStateDir+`"`), "disk-read-only " + target.PAMStateDir, true},
		"low":              {small(target.PAMStateDir, ""), "disk-low " + target.PAMStateDir, false},
		"immutable":        {`chattr +i "$1` + target.PAMStateDir + `"`, "file-attributes " + target.PAMStateDir, true},
		"state, read-only": {`mount --bind "$1` + target.StateDir + `" "$1` + target.StateDir + `"; mount -o remount,bind,ro "$1` + target.StateDir + `"`, "disk-read-only " + target.StateDir, true},
		"run, full":        {small("/run", `mkdir -m 0755 "$1/run/sshd"; cat /dev/zero >"$1/run/x" || :`), "disk-full /run", true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.bake()
			t.Cleanup(func() {
				for _, d := range []string{target.PAMStateDir, target.StateDir, "/run"} {
					d = filepath.Join(m.Root(), d)
					_ = exec.Command("chattr", "-i", d).Run() // only one of the rows sets it
					_ = exec.Command("umount", d).Run()       // likewise
				}
			})
			if out, err := exec.Command("sh", "-euc", tt.script+" 2>/dev/null", "sh", m.Root()).CombinedOutput(); err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatalf("%v\n%s", err, out)
				}
				t.Skipf("cannot be made here: %v\n%s", err, out)
			}
			findings, err := Check(t.Context(), m.Target)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.Index(ids(findings), tt.want)
			if i < 0 {
				t.Fatalf("%q, want %q", ids(findings), tt.want)
			}
			j := slices.IndexFunc(findings, func(f Finding) bool { return f.ID+" "+f.Path == tt.want })
			if bad := findings[j].Severity != Warning; bad != tt.bad {
				t.Errorf("severity %s", findings[j].Severity)
			}
		})
	}
}
