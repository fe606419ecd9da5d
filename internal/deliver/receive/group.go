// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// group brings files to the disk in groups: while one is on its way, those that
// come wait, and are the next one. A disk that takes ten milliseconds to be sure
// of something takes little more to be sure of a hundred.
type group struct {
	// What brings contents, and names in directories, to the disk.
	syncFiles func([]*os.File) []error
	syncDirs  func(dirs []string) []error

	root string // the directory whose own name is durable; clean

	mu      sync.Mutex
	waiting []*entry
	busy    bool
}

// entry is a file that is to have its final name, durably.
type entry struct {
	file  *os.File // written, under another name; nil: it has its final name
	final string
	err   error
	done  chan struct{}
}

// commit returns when the entry is on the disk for good. The error is
// [fs.ErrExist] if the final name is taken: whatever has it is on the disk then.
func (g *group) commit(e *entry) error {
	e.done = make(chan struct{})
	g.mu.Lock()
	g.waiting = append(g.waiting, e)
	if !g.busy {
		g.busy = true
		go g.work()
	}
	g.mu.Unlock()
	<-e.done
	return e.err
}

// work ends when nobody waits.
func (g *group) work() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) > 0 {
		now := g.waiting
		g.waiting = nil
		g.mu.Unlock()
		g.settle(now)
		for _, e := range now {
			close(e.done)
		}
		g.mu.Lock()
	}
	g.busy = false
}

// settle is the order that survives a power cut: contents, names, directories.
func (g *group) settle(entries []*entry) {
	var files []*os.File
	var of []*entry
	for _, e := range entries {
		if e.file != nil {
			files, of = append(files, e.file), append(of, e)
		}
	}
	for i, err := range g.syncFiles(files) {
		of[i].err = err
	}
	var dirs []string
	for _, e := range entries {
		if e.file != nil && e.err == nil {
			// A link fails where a rename would overwrite.
			e.err = os.Link(e.file.Name(), e.final)
		}
		dir := filepath.Dir(e.final)
		dirs = append(dirs, dir)
		if dir != g.root {
			// Its own name is synchronised each time: it may have been removed and
			// made again.
			dirs = append(dirs, filepath.Dir(dir))
		}
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	failed := map[string]error{}
	for i, err := range g.syncDirs(dirs) {
		failed[dirs[i]] = err
	}
	for _, e := range entries {
		dir := filepath.Dir(e.final)
		err := failed[dir]
		if dir != g.root && err == nil {
			err = failed[filepath.Dir(dir)]
		}
		if err != nil {
			e.err = err
		}
	}
}

// syncFiles brings files to the disk. The file system makes few entries of its
// journal of many at a time. All of it at once, as by syncfs(2), would wait for
// whatever others write there as well.
func syncFiles(files []*os.File) []error {
	return sideBySide(files, (*os.File).Sync)
}

// syncDirs brings the names in directories to the disk.
func syncDirs(dirs []string) []error {
	return sideBySide(dirs, syncDir)
}

func sideBySide[T any](all []T, do func(T) error) []error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, one := range all {
		wg.Go(func() { errs[i] = do(one) })
	}
	wg.Wait()
	return errs
}
