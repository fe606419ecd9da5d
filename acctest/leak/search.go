// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package leak

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Bytes searches data, which hits call name.
func (n *Needles) Bytes(name string, data []byte) []Hit {
	hits, _ := n.Reader(name, bytes.NewReader(data))
	return hits
}

// Reader searches a stream to its end, which hits call name. Where it begins as
// a gzip file, its plain contents are searched as well and called "name (gunzipped)"; a damaged
// gzip stream is searched as far as it goes, and is no error.
func (n *Needles) Reader(name string, r io.Reader) ([]Hit, error) {
	var hits []Hit
	in := bufio.NewReaderSize(r, 256<<10)
	magic, _ := in.Peek(3)
	if !bytes.Equal(magic, []byte{0x1f, 0x8b, 8}) {
		err := n.scan(in, func(h Hit) { h.File = name; hits = append(hits, h) })
		return hits, err
	}
	plain, packed := io.Pipe()
	done := make(chan struct{})
	var inner []Hit
	go func() {
		defer close(done)
		if gz, err := gzip.NewReader(plain); err == nil {
			_ = n.scan(gz, func(h Hit) { h.File = name + " (gunzipped)"; inner = append(inner, h) })
		}
		_, _ = io.Copy(io.Discard, plain)
	}()
	err := n.scan(io.TeeReader(in, packed), func(h Hit) { h.File = name; hits = append(hits, h) })
	_ = packed.Close()
	<-done
	return append(hits, inner...), err
}

// File searches one file, called by its name.
func (n *Needles) File(name string) ([]Hit, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return n.Reader(name, f)
}

// Extent is how much a search of a tree has read.
type Extent struct {
	Files int
	Bytes int64
}

// Tree searches everything below the directory top: names, contents, targets of
// symbolic links, all of which hits call by the path below top. Directories that something
// else is mounted on are not entered; sockets, pipes and devices have no
// contents. A file that vanishes on the way is no error, one that cannot be read is.
func (n *Needles) Tree(top string) ([]Hit, Extent, error) {
	var (
		hits   []Hit
		extent Extent
	)
	device, err := deviceOf(top)
	if err != nil {
		return nil, extent, err
	}
	files := make(chan [2]string) // path, name for hits
	var (
		mu      sync.Mutex
		errs    []error
		workers sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for f := range files {
				found, size, err := n.file(f[0], f[1])
				mu.Lock()
				hits = append(hits, found...)
				extent.Bytes += size
				if err == nil {
					extent.Files++
				}
				errs = append(errs, ignoreGone(err))
				mu.Unlock()
			}
		})
	}
	err = n.walk(top, device, files, func(h Hit) {
		mu.Lock()
		hits = append(hits, h)
		mu.Unlock()
	})
	close(files)
	workers.Wait()
	slices.SortStableFunc(hits, func(a, b Hit) int { return strings.Compare(a.File, b.File) })
	return hits, extent, errors.Join(append(errs, err)...)
}

// walk searches names and targets below top, and sends the regular files.
func (n *Needles) walk(top string, device uint64, files chan<- [2]string, hit func(Hit)) error {
	return filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != top {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		for _, h := range n.Bytes(rel, []byte(d.Name())) {
			h.Offset = -1
			hit(h)
		}
		switch {
		case d.IsDir():
			dev, err := deviceOf(path)
			if err == nil && dev != device {
				return fs.SkipDir
			}
			return ignoreGone(err)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return ignoreGone(err)
			}
			for _, h := range n.Bytes(rel, []byte(target)) {
				hit(h)
			}
		case d.Type().IsRegular():
			files <- [2]string{path, rel}
		}
		return nil
	})
}

func (n *Needles) file(path, name string) ([]Hit, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	counter := &counter{r: f}
	hits, err := n.Reader(name, counter)
	if err != nil {
		err = fmt.Errorf("%s: %w", name, err)
	}
	return hits, counter.n, err
}

func (n *Needles) scan(r io.Reader, hit func(Hit)) error {
	s := &scan{needles: n, hit: func(kind string, last int64) { hit(Hit{Kind: kind, Offset: last}) }}
	buf := make([]byte, 64<<10)
	for {
		k, err := r.Read(buf)
		s.write(buf[:k])
		if err == io.EOF {
			s.end()
			return nil
		}
		if err != nil {
			s.end()
			return err
		}
	}
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	k, err := c.r.Read(p)
	c.n += int64(k)
	return k, err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
