// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"path"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A card that was damaged before a channel had it is made again, and nothing of the
// damaged one is left.
func TestDamagedEnvelope(t *testing.T) {
	for _, dir := range []string{target.Ready, target.Staged} {
		for _, file := range []string{"meta.json", "envelope.age"} {
			t.Run(dir+"/"+file, func(t *testing.T) {
				m := newMachine(t)
				m.mustRun()
				old, _ := m.enrolled("alice")
				entry := path.Join(dir, old.Mark.ID)
				if dir == target.Staged { // killed between commit and promotion
					if err := m.t.Rename(path.Join(target.Ready, old.Mark.ID), entry); err != nil {
						t.Fatal(err)
					}
				}
				text := m.read(path.Join(entry, file))
				m.put(path.Join(entry, file), text[:len(text)/2])
				m.mustRun()
				now, c := m.enrolled("alice")
				if now.Secret == old.Secret || c.Supersedes != old.Mark.ID {
					t.Errorf("the damaged card still counts: it supersedes %q", c.Supersedes)
				}
				if m.t.Exists(entry) {
					t.Errorf("%s is still there", entry)
				}
			})
		}
	}
}

// What runs that were killed have left goes with the next run.
func TestSweep(t *testing.T) {
	const temp, id = ".totp-tmp-ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefgh234567ijklmnopqrsu"
	m := newMachine(t)
	m.mustRun()
	past := time.Now().Add(-time.Hour)
	litter := []string{
		path.Join(target.PAMStateDir, temp), path.Join(target.StateDir, temp), path.Join(target.CloudInstances, "i-1", temp), path.Join(target.Etc, temp),
		path.Join(target.Staged, ".tmp-"+id, "meta.json"), path.Join(target.Ready, ".tmp-"+id, "envelope.age"),
	}
	for _, name := range litter {
		m.put(name, "x")
		if err := m.t.Chtimes(name, past); err != nil {
			t.Fatal(err)
		}
	}
	stays := []string{path.Join(target.StateDir, temp+"2"), path.Join(target.Etc, "totp-tmp-x")}
	for _, name := range stays {
		m.put(name, "x") // of a command that is at work, and of others
	}
	m.mustRun()
	for _, name := range litter {
		if m.t.Exists(name) {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range stays {
		if !m.t.Exists(name) {
			t.Errorf("%s is gone", name)
		}
	}
}
