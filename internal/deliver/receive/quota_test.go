// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestQuota(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, size int) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file("a.age", 100)
	file("shared/b.age", 100)
	file("own/c.age", 1000)
	now := time.Unix(0, 0)
	q := quota{dir: dir, limit: 500, own: func(c string) bool { return c == "own" }, now: func() time.Time { return now }}
	for i, step := range []struct {
		before func()
		size   int64
		room   bool
	}{
		{size: 200, room: true}, // 400 of 500
		{size: 101},
		{size: 100, room: true},
		{size: 1},
		{before: func() { q.release(50) }, size: 50, room: true},
		{before: func() { os.Remove(filepath.Join(dir, "a.age")) }, size: 1}, // measured too short a time ago
		{before: func() { now = now.Add(recount) }, size: 400, room: true},   // what was never stored is forgotten as well
		{size: 1},
	} {
		if step.before != nil {
			step.before()
		}
		if room, err := q.reserve(step.size); room != step.room || err != nil {
			t.Errorf("step %d: room %v, %v, want %v", i, room, err, step.room)
		}
	}
}
