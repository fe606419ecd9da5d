// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestCheckRewrite tries real file systems. A mount needs root.
func TestCheckRewrite(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount")
	}
	const tmpfs = `mount -t tmpfs -o size=64k,nr_inodes=32,mode=0700 tmpfs "$1/disk"; mkdir -m 0700 "$1/disk/states" "$1/disk/state"; `
	const ext4 = `truncate -s 2M "$1/img"; mkfs.ext4 -q -N 32 "$1/img"; mount -o loop "$1/img" "$1/disk"; mkdir -m 0700 "$1/disk/states" "$1/disk/state"; `
	for name, tt := range map[string]struct {
		script string
		want   error
		low    bool
	}{
		"tmpfs with room":      {tmpfs, nil, true},
		"a large file system":  {`mkdir -m 0700 "$1/disk/states" "$1/disk/state"; `, nil, false},
		"tmpfs, full":          {tmpfs + `cat /dev/zero >"$1/disk/states/x" || :`, ErrDiskFull, true},
		"tmpfs, no inodes":     {tmpfs + `i=0; while touch "$1/disk/state/$i"; do i=$((i+1)); done 2>/dev/null`, ErrNoInodes, true},
		"tmpfs, read-only":     {tmpfs + `mount -o remount,ro "$1/disk"`, ErrReadOnly, true},
		"read-only bind mount": {tmpfs + `mount --bind "$1/disk/states" "$1/disk/states"; mount -o remount,bind,ro "$1/disk/states"`, ErrReadOnly, true},
		"ext4 with room":       {ext4, nil, true},
		// A large write stops at the clusters that ext4 keeps for itself; small ones go on.
		"ext4, full for root": {strings.Replace(ext4, "-N 32", "-N 1024", 1) + `cat /dev/zero >"$1/disk/x" || :
sync -f "$1/disk"; i=0; while echo x >"$1/disk/f$i"; do i=$((i+1)); sync -f "$1/disk"; done 2>/dev/null`, ErrDiskFull, true},
		"ext4, full for users":   {ext4 + `tune2fs -r 64 "$1/img" >/dev/null; chmod 0777 "$1/disk"; setpriv --reuid=65534 --clear-groups sh -c 'cat /dev/zero >"$0/disk/x"' "$1" || :`, nil, true},
		"ext4, no inodes":        {ext4 + `i=0; while touch "$1/disk/state/$i"; do i=$((i+1)); done 2>/dev/null`, ErrNoInodes, true},
		"ext4, immutable":        {ext4 + `chattr +i "$1/disk/states"`, ErrAttr, true},
		"ext4, append-only":      {ext4 + `chattr +a "$1/disk/states"`, ErrAttr, true},
		"ext4, a file immutable": {ext4 + `: >"$1/disk/states/alice"; chattr +i "$1/disk/states/alice"`, ErrAttr, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "disk"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				exec.Command("sh", "-c", `chattr -R -i -a "$1/disk" 2>/dev/null; umount "$1/disk/states" 2>/dev/null; umount "$1/disk"`, "sh", dir).Run()
			})
			if out, err := exec.Command("sh", "-euc", tt.script, "sh", dir).CombinedOutput(); err != nil {
				skip := t.Skipf
				if os.Getenv("CI") == "true" {
					skip = t.Fatalf
				}
				skip("cannot be made here: %v\n%s", err, out)
			}
			tg, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer tg.Close()
			for _, scratch := range []string{"", "/disk/state"} {
				if err := tg.CheckRewrite("/disk/states", scratch, 512); !errors.Is(err, tt.want) {
					t.Errorf("scratch %q: error %v, want %v", scratch, err, tt.want)
				} else if err != nil && !IsDiskFault(err) {
					t.Errorf("scratch %q: %v is not a fault of the disk", scratch, err)
				}
			}
			s, err := tg.Space("/disk/states")
			if err != nil || s.Low() != tt.low {
				t.Errorf("space %v, low %v, want %v; %v", s, s.Low(), tt.low, err)
			}
			for _, d := range []string{"/disk/states", "/disk/state"} {
				if tg.Exists(d + "/" + probeName) {
					t.Errorf("%s: the probe was left", d)
				}
			}
		})
	}
}
