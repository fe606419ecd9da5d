// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// DefaultQuota is how many bytes of disk the clients that share the credential "*"
// may fill together: more than 100,000 envelopes.
const DefaultQuota = 1 << 30

const (
	// recount is how often a full quota is measured again: files are removed by
	// those who collect them.
	recount = 10 * time.Second

	// blockSize is what a file system gives out at a time, in bytes: a file of one
	// byte fills a block, and so does a directory.
	blockSize = 4096

	maxSharedFiles = 1 << 17 // and directories: each is an inode
	maxSharedNames = 1 << 15 // directories of clients
)

// Why the quota has no room.
var (
	errQuotaBytes = errors.New("the quota of the clients of * is used up")
	errQuotaFiles = fmt.Errorf("the clients of * have %d files and directories here, which is the limit", maxSharedFiles)
	errQuotaNames = fmt.Errorf("the clients of * have %d names here, which is the limit", maxSharedNames)
)

// usage is room on the disk.
type usage struct {
	bytes int64 // in whole blocks
	files int   // and directories
	names int   // directories of clients
}

func (u usage) plus(v usage) usage {
	return usage{u.bytes + v.bytes, u.files + v.files, u.names + v.names}
}

func (u usage) minus(v usage) usage {
	return usage{u.bytes - v.bytes, u.files - v.files, u.names - v.names}
}

func fileUsage(size int64) usage { return usage{bytes: blocks(size), files: 1} }
func nameUsage(size int64) usage { return usage{bytes: blocks(size), files: 1, names: 1} }

// blocks rounds a size up to whole blocks; there is at least one.
func blocks(size int64) int64 {
	return max(1, (size+blockSize-1)/blockSize) * blockSize
}

// quota bounds what the clients without a line of their own have stored. A client
// can call itself whatever it likes, so they share one.
//
// What is used is counted as it comes. It is measured at the start, and when the
// quota is full, beside the requests: none of them waits for that.
type quota struct {
	dir   string
	limit int64
	own   func(client string) bool // reports whether a client has a line of its own
	now   func() time.Time
	logf  func(format string, args ...any)

	mu        sync.Mutex
	used      usage
	pending   usage // reserved, and not yet stored or given up
	measuring bool
	beside    usage // what a measurement that is under way may have missed
	measured  time.Time
}

// reserve takes room for a file of size bytes of a client, which has no directory
// yet if fresh is set. The error says which limit is reached. The caller calls
// done when the file is stored or given up.
func (q *quota) reserve(size int64, fresh bool) (done func(stored bool), err error) {
	file := fileUsage(size)
	u := file
	if fresh {
		u = u.plus(nameUsage(0))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.check(q.used.plus(u)); err != nil {
		if !q.measuring && q.now().Sub(q.measured) >= recount {
			q.begin()
			go q.measure()
		}
		return nil, err
	}
	q.used, q.pending, q.beside = q.used.plus(u), q.pending.plus(u), q.beside.plus(u)
	return func(stored bool) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.pending = q.pending.minus(u)
		if !stored { // its directory may be there
			q.used, q.beside = q.used.minus(file), q.beside.minus(file)
		}
	}, nil
}

func (q *quota) check(u usage) error {
	switch {
	case u.bytes > q.limit:
		return errQuotaBytes
	case u.files > maxSharedFiles:
		return errQuotaFiles
	case u.names > maxSharedNames:
		return errQuotaNames
	}
	return nil
}

// start measures before the first request.
func (q *quota) start() error {
	q.mu.Lock()
	q.begin()
	q.mu.Unlock()
	return q.measure()
}

// begin is called with the lock held.
func (q *quota) begin() { q.measuring, q.beside = true, q.pending }

// measure puts what is on the disk in place of what was counted. What is reserved or
// stored meanwhile is added, even if the walk has seen it: the next measurement
// corrects that.
func (q *quota) measure() error {
	used, err := q.walk()
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		q.used = used.plus(q.beside)
	} else {
		q.logf("quota: %v", err)
	}
	q.measuring, q.measured = false, q.now()
	return err
}

// walk adds up the files in the directory itself and in those of clients that have
// no line of their own. Directories of such clients that are empty are removed:
// their envelopes have been collected.
func (q *quota) walk() (usage, error) {
	var used usage
	entries, err := os.ReadDir(q.dir)
	if err != nil {
		return used, err
	}
	for _, e := range entries {
		switch {
		case e.Type().IsRegular():
			used = used.plus(usageOf(e, fileUsage))
		case e.IsDir() && !q.own(e.Name()):
			inner, err := os.ReadDir(filepath.Join(q.dir, e.Name()))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return used, err
			}
			if len(inner) == 0 && q.removeEmpty(e) {
				continue
			}
			used = used.plus(usageOf(e, nameUsage))
			for _, f := range inner {
				used = used.plus(usageOf(f, fileUsage))
			}
		}
	}
	return used, nil
}

// removeEmpty removes the directory of a client, unless it is so new that an
// envelope may be on its way there, or looks as if it was not made here.
func (q *quota) removeEmpty(e fs.DirEntry) bool {
	fi, err := e.Info()
	if err != nil || !isClient(e.Name()) || !ours(fi) || !confidential(fi) || q.now().Sub(fi.ModTime()) < staleTime {
		return false
	}
	return os.Remove(filepath.Join(q.dir, e.Name())) == nil // fails if anything is in it
}

// usageOf is zero for what has been removed meanwhile.
func usageOf(e fs.DirEntry, of func(size int64) usage) usage {
	if fi, err := e.Info(); err == nil {
		return of(fi.Size())
	}
	return usage{}
}
