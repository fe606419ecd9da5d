// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"io/fs"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// probeSize is what the PAM module writes at a login: no state file of ours comes near it.
const probeSize = 4 << 10

const freeSpace = "find out what fills it and delete files: df -h /var/lib; df -i /var/lib"

// writable looks at the disk. The PAM module writes and renames a file at each login, and
// refuses the right code where it cannot. The same is tried here, with a name that the
// module ignores. On a disk that is mounted elsewhere it would say nothing: a rescue
// system mounts read-only.
func (c *checker) writable() {
	if !isLive(c.t) {
		return
	}
	for _, d := range []struct {
		dir      string
		severity Severity
		without  string
	}{
		{target.PAMStateDir, Critical, "every login is refused, with right codes too"},
		{target.StateDir, Degraded, "users are not enrolled, and envelopes are not delivered"},
		{"/run", Degraded, "sshd shows no notice, and status has nothing to report"},
	} {
		err := c.t.CheckRewrite(d.dir, "", probeSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue // reported with the directories
		}
		if err != nil {
			id, fix := writeFinding(d.dir, err)
			c.add(d.severity, id, d.dir, err.Error()+": "+d.without, fix)
			continue
		}
		if s, err := c.t.Space(d.dir); err == nil && s.Low() {
			c.add(Warning, "disk-low", d.dir, s.String()+"; once there is none, "+d.without, freeSpace)
		}
	}
}

// isLive is replaced by tests that play a running machine in a folder.
var isLive = (*target.Target).Live

// writeFinding returns the ID of what keeps files from being written, and what ends it.
func writeFinding(dir string, err error) (id, fix string) {
	switch {
	case errors.Is(err, target.ErrReadOnly):
		return "disk-read-only", "run: mount -o remount,rw $(findmnt -nT " + dir + " -o TARGET)"
	case errors.Is(err, target.ErrAttr):
		return "file-attributes", "run: chattr -R -i -a " + dir
	case target.IsDiskFault(err):
		return "disk-full", freeSpace
	}
	return "disk", "see docs/recovery.md"
}
