// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"
)

// ErrSecret means that others could read or change a file that holds secrets.
var ErrSecret = errors.New("others can read or change it")

// watched is what files say. They are read again when one of them has changed,
// so that a renewed certificate or a new client needs no restart.
type watched[T any] struct {
	names  []string
	secret bool // the files are nobody else's business
	parse  func(contents [][]byte) (T, error)
	logf   func(format string, args ...any)

	mu    sync.Mutex
	seen  []stamp
	value T
	said  string // the last complaint
}

// stamp tells versions of a file apart.
type stamp struct {
	info fs.FileInfo
	size int64
	time time.Time
}

func (s stamp) same(o stamp) bool {
	return s.size == o.size && s.time.Equal(o.time) && os.SameFile(s.info, o.info)
}

// load reads the files for the first time.
func (w *watched[T]) load() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, err := w.look()
	if err != nil {
		return err
	}
	w.seen = seen
	w.value, err = w.read()
	return err
}

// get returns the value. Where files cannot be used any more, it is the last one
// that could.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, err := w.look()
	if err == nil && slices.EqualFunc(seen, w.seen, stamp.same) {
		return w.value
	}
	var value T
	if err == nil {
		w.seen = seen
		value, err = w.read()
	}
	if err != nil {
		if w.said != err.Error() {
			w.said = err.Error()
			w.logf("keeping what was read before: %s", w.said)
		}
		return w.value
	}
	w.logf("read %q again", w.names)
	w.value, w.said = value, ""
	return w.value
}

func (w *watched[T]) look() ([]stamp, error) {
	var seen []stamp
	for _, name := range w.names {
		fi, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		if w.secret && !confidential(fi) {
			return nil, fmt.Errorf("file %q has mode %04o: %w; chmod 600 it", name, fi.Mode().Perm(), ErrSecret)
		}
		seen = append(seen, stamp{fi, fi.Size(), fi.ModTime()})
	}
	return seen, nil
}

func (w *watched[T]) read() (T, error) {
	var contents [][]byte
	for _, name := range w.names {
		b, err := os.ReadFile(name)
		if err != nil {
			return w.value, err
		}
		contents = append(contents, b)
	}
	v, err := w.parse(contents)
	if err != nil {
		return v, fmt.Errorf("file %q: %w", w.names[len(w.names)-1], err)
	}
	return v, nil
}
