// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"syscall"
)

// maxLinks is the kernel's own limit of symbolic links on one path.
const maxLinks = 40

// resolve turns an absolute guest path into one relative to the root that
// [os.Root] can walk: it holds no absolute symbolic link, which os.Root
// refuses, and its last element is no link unless followLast is false.
// Elements that do not exist are kept, so that they can be made. An absolute
// link on the way is, for example, /var/lib/cloud/instance.
func (t *Target) resolve(name string, followLast bool) (string, error) {
	if !strings.HasPrefix(name, "/") || strings.ContainsRune(name, 0) {
		return "", &fs.PathError{Op: "resolve", Path: name, Err: ErrPath}
	}
	// Few paths have a link on the way, and os.Root itself resolves those that
	// are not absolute. So most are settled by one look.
	if rel := strings.TrimPrefix(path.Clean(name), "/"); rel != "" {
		fi, err := t.lstat(rel)
		if errors.Is(err, fs.ErrNotExist) || err == nil && (!followLast || fi.Mode()&fs.ModeSymlink == 0) {
			return rel, nil
		}
	}
	var done []string
	rest := elements(path.Clean(name))
	for links := 0; len(rest) > 0; {
		elem := rest[0]
		rest = rest[1:]
		if elem == ".." {
			if len(done) > 0 { // the root's parent is the root
				done = done[:len(done)-1]
			}
			continue
		}
		done = append(done, elem)
		if len(rest) == 0 && !followLast {
			break
		}
		rel := strings.Join(done, "/")
		fi, err := t.lstat(rel)
		if errors.Is(err, fs.ErrNotExist) {
			for _, e := range rest {
				if e == ".." {
					return "", guest(name, err)
				}
			}
			done = append(done, rest...)
			break
		}
		if err != nil {
			return "", guest(name, err)
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			continue
		}
		if c, _ := t.confinedBelow(rel); c != nil {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "resolve", Path: name, Err: syscall.ELOOP}
		}
		root, below := t.at(rel)
		link, err := root.Readlink(below)
		if err != nil {
			return "", guest(name, err)
		}
		done = done[:len(done)-1]
		if strings.HasPrefix(link, "/") {
			done = done[:0]
		}
		rest = append(elements(link), rest...)
	}
	if len(done) == 0 {
		return ".", nil
	}
	return strings.Join(done, "/"), nil
}

func elements(p string) []string {
	var es []string
	for e := range strings.SplitSeq(p, "/") {
		if e != "" && e != "." {
			es = append(es, e)
		}
	}
	return es
}

// guest puts the guest's absolute path into an error of [os.Root], which
// names files relative to the root.
func guest(name string, err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return &fs.PathError{Op: strings.TrimSuffix(pe.Op, "at"), Path: name, Err: pe.Err}
	}
	if le, ok := err.(*os.LinkError); ok {
		return &fs.PathError{Op: strings.TrimSuffix(le.Op, "at"), Path: name, Err: le.Err}
	}
	return err
}
