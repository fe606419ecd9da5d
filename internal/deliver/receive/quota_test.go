// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// writeFile makes a file, and its directory, below dir.
func writeFile(t *testing.T, dir, name string, size int) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newQuota(t *testing.T, dir string, limit int64) *quota {
	q := &quota{dir: dir, limit: limit, own: func(c string) bool { return c == "own" }, now: time.Now, logf: t.Logf}
	if err := q.start(); err != nil {
		t.Fatal(err)
	}
	return q
}

// TestQuota: what counts is the room on the disk, whatever a file's size is.
func TestQuota(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "a.age", 100)
	writeFile(t, dir, "shared/b.age", 100)
	writeFile(t, dir, "own/c.age", 1000)
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, dir, 9*blockSize) // two files and a directory are there
		var undo func(bool)
		for i, step := range []struct {
			before func()
			size   int64
			fresh  bool
			want   error
		}{
			{size: blockSize + 1},  // 5
			{size: 1, fresh: true}, // 7
			{size: 2*blockSize + 1, want: errQuotaBytes},
			{size: 2*blockSize - 1}, // 9
			{size: 1, want: errQuotaBytes},
			{before: func() { undo(false) }, size: 1},
			{size: 1},
			{before: func() { os.Remove(filepath.Join(dir, "a.age")) }, size: 1, want: errQuotaBytes}, // measured too short a time ago
			{before: func() { undo(true); time.Sleep(recount) }, size: 1, want: errQuotaBytes},        // is measured now
			{before: synctest.Wait, size: blockSize + 1},                                              // what is reserved still counts
			{size: 1, want: errQuotaBytes},
		} {
			if step.before != nil {
				step.before()
			}
			done, err := q.reserve(step.size, step.fresh)
			if !errors.Is(err, step.want) {
				t.Errorf("step %d: %v, want %v", i, err, step.want)
			}
			if err == nil {
				undo = done
			}
		}
	})
}

// TestQuotaInodes: files and names have limits of their own.
func TestQuotaInodes(t *testing.T) {
	for _, c := range []struct {
		name  string
		used  usage
		fresh bool
		want  error
	}{
		{"a file more", usage{files: maxSharedFiles - 1}, false, nil},
		{"a file too many", usage{files: maxSharedFiles}, false, errQuotaFiles},
		{"a file and its directory", usage{files: maxSharedFiles - 2}, true, nil},
		{"a directory too many", usage{files: maxSharedFiles - 1}, true, errQuotaFiles},
		{"a name more", usage{names: maxSharedNames - 1}, true, nil},
		{"a name too many", usage{names: maxSharedNames}, true, errQuotaNames},
		{"a known name", usage{names: maxSharedNames}, false, nil},
	} {
		q := newQuota(t, t.TempDir(), DefaultQuota)
		q.used = c.used
		if _, err := q.reserve(1, c.fresh); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestQuotaNoWait: requests do not wait for a measurement, which has much to read.
func TestQuotaNoWait(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "shared/a.age", 1)
	synctest.Test(t, func(t *testing.T) {
		q := newQuota(t, dir, 2*blockSize)
		walking, proceed := make(chan bool), make(chan bool)
		q.own = func(string) bool { walking <- true; <-proceed; return false }
		time.Sleep(recount)
		for range 3 {
			if _, err := q.reserve(1, false); !errors.Is(err, errQuotaBytes) {
				t.Errorf("full: %v", err)
			}
		}
		<-walking // once
		q.limit = 4 * blockSize
		kept, err := q.reserve(1, false)
		if err != nil {
			t.Error(err)
		}
		given, err := q.reserve(1, false)
		if err != nil {
			t.Error(err)
		}
		kept(true)
		given(false)
		close(proceed)
		synctest.Wait()
		if want := (usage{bytes: 3 * blockSize, files: 3, names: 1}); q.used != want || q.pending != (usage{}) {
			t.Errorf("used %v, want %v; pending %v", q.used, want, q.pending)
		}
	})
}

// TestQuotaEmptyNames: a name whose envelopes have been collected is free again.
func TestQuotaEmptyNames(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes of directories")
	}
	dir := t.TempDir()
	old := time.Now().Add(-staleTime - time.Minute)
	for name, c := range map[string]struct {
		mode fs.FileMode
		age  time.Time
		kept bool
	}{
		"collected": {0o700, old, false},
		"just-made": {0o700, time.Now(), true},
		"own":       {0o700, old, true},
		"Archive":   {0o700, old, true}, // not a client's name
		"archive":   {0o755, old, true},
		"full":      {0o700, old, true},
	} {
		dir := filepath.Join(dir, name)
		if name == "full" {
			writeFile(t, dir, "a.age", 1)
		}
		if err := errors.Join(os.MkdirAll(dir, c.mode), os.Chmod(dir, c.mode), os.Chtimes(dir, c.age, c.age)); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := os.Stat(dir); err == nil != c.kept {
				t.Errorf("%s: kept %v, want %v", name, err == nil, c.kept)
			}
		}()
	}
	if q := newQuota(t, dir, DefaultQuota); q.used.names != 4 {
		t.Errorf("%d names", q.used.names)
	}
}
