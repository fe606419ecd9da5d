// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DefaultQuota is how many bytes the clients that share the credential "*" may
// have stored together: about 100,000 envelopes.
const DefaultQuota = 1 << 30

// recount is how often a full quota is measured again: files are removed by
// those who collect them.
const recount = 10 * time.Second

// quota bounds the bytes that the clients without a line of their own have
// stored. A client can call itself whatever it likes, so they share one.
type quota struct {
	dir   string
	limit int64
	own   func(client string) bool // reports whether a client has a line of its own
	now   func() time.Time

	mu       sync.Mutex
	used     int64
	measured time.Time // zero: never
}

// reserve takes room for size bytes, and reports whether there is any. What is
// not stored after all is given back by release.
func (q *quota) reserve(size int64) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	full := q.used+size > q.limit
	if q.measured.IsZero() || full && q.now().Sub(q.measured) >= recount {
		used, err := q.measure()
		if err != nil {
			return false, err
		}
		q.used, q.measured = used, q.now()
		full = q.used+size > q.limit
	}
	if full {
		return false, nil
	}
	q.used += size
	return true, nil
}

func (q *quota) release(size int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.used -= size
}

// measure adds up the files in the directory itself and in those of clients that
// have no line of their own.
func (q *quota) measure() (int64, error) {
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return 0, err
	}
	var used int64
	for _, e := range entries {
		switch {
		case e.Type().IsRegular():
			used += sizeOf(e)
		case e.IsDir() && !q.own(e.Name()):
			inner, err := os.ReadDir(filepath.Join(q.dir, e.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return 0, err
			}
			for _, f := range inner {
				used += sizeOf(f)
			}
		}
	}
	return used, nil
}

// sizeOf is zero for a file that has been removed meanwhile.
func sizeOf(e fs.DirEntry) int64 {
	if fi, err := e.Info(); err == nil && fi.Mode().IsRegular() {
		return fi.Size()
	}
	return 0
}
