// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package systemd

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// searchPath lists the directories of system units, the one that wins first;
// see systemd.unit(5), "System Unit Search Path". The last but one is that of
// systems where /lib is no link to /usr/lib.
var searchPath = []string{
	"/etc/systemd/system.control",
	"/run/systemd/system.control",
	"/run/systemd/transient",
	"/run/systemd/generator.early",
	"/etc/systemd/system",
	"/etc/systemd/system.attached",
	"/run/systemd/system",
	"/run/systemd/system.attached",
	"/run/systemd/generator",
	"/usr/local/lib/systemd/system",
	"/usr/lib/systemd/system",
	"/lib/systemd/system",
	"/run/systemd/generator.late",
}

// A Unit is a unit as systemd loads it.
type Unit struct {
	Name   string   // its own, where it was asked for by an alias
	Names  []string // its own and its aliases
	File   string   // empty: there is none
	Masked bool

	// DropIns are the files that change the unit, in the order in which they apply.
	// Hidden are those that another file of the same name keeps from it.
	DropIns, Hidden []string

	settings []Setting
}

// A Setting is one assignment of a unit's file or drop-in.
type Setting struct {
	Section, Key, Value string
	File                string
}

// Load reads a unit, which may be a template. A unit that is not there is no
// error: its File is empty.
func Load(t *target.Target, name string) (*Unit, error) {
	dirs := directories(t)
	links, err := readNames(t, dirs)
	if err != nil {
		return nil, err
	}
	u := &Unit{Name: links.final(name)}
	u.Names = []string{u.Name}
	for other := range links {
		if other != u.Name && links.final(other) == u.Name {
			u.Names = append(u.Names, other)
		}
	}
	slices.Sort(u.Names[1:])
	if l, ok := links[u.Name]; ok {
		u.File = l.path
		if u.Masked = l.masked(t); u.Masked {
			return u, nil
		}
		if err := u.read(t, u.File); err != nil {
			return nil, err
		}
	}
	if err := u.findDropIns(t, dirs); err != nil {
		return nil, err
	}
	for _, f := range u.DropIns {
		if err := u.read(t, f); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// All returns every assignment to one of the keys of a section, in the order in
// which they apply.
func (u *Unit) All(section string, keys ...string) []Setting {
	var out []Setting
	for _, s := range u.settings {
		if s.Section == section && slices.Contains(keys, s.Key) {
			out = append(out, s)
		}
	}
	return out
}

// From returns every assignment of a file or drop-in.
func (u *Unit) From(file string) []Setting {
	var out []Setting
	for _, s := range u.settings {
		if s.File == file {
			out = append(out, s)
		}
	}
	return out
}

// List returns the values of a key that takes several: an empty assignment
// clears those before it.
func (u *Unit) List(section, key string) []Setting {
	var out []Setting
	for _, s := range u.All(section, key) {
		if s.Value == "" {
			out = nil
			continue
		}
		out = append(out, s)
	}
	return out
}

// directories are the search path without those that are another one by a link.
func directories(t *target.Target) []string {
	var dirs []string
	seen := map[string]bool{}
	for _, d := range searchPath {
		real, err := t.Resolve(d)
		if err != nil || seen[real] || !t.IsDir(d) {
			continue
		}
		seen[real] = true
		dirs = append(dirs, d)
	}
	return dirs
}

// A unitLink is where a name of a unit is found first.
type unitLink struct {
	path string
	dest string // of a symbolic link
}

// masked reports whether systemd takes the file for a mask: a link to /dev/null,
// or an empty file.
func (l unitLink) masked(t *target.Target) bool {
	if l.dest == "/dev/null" {
		return true
	}
	fi, err := t.Stat(l.path)
	return err == nil && (fi.Mode()&fs.ModeDevice != 0 || fi.Mode().IsRegular() && fi.Size() == 0)
}

// unitLinks are all names of units in the search path.
type unitLinks map[string]unitLink

func readNames(t *target.Target, dirs []string) (unitLinks, error) {
	links := unitLinks{}
	for _, d := range dirs {
		entries, err := t.ReadDir(d)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			name := e.Name()
			if _, ok := links[name]; ok || e.IsDir() || !strings.Contains(name, ".") {
				continue
			}
			l := unitLink{path: path.Join(d, name)}
			if e.Type()&fs.ModeSymlink != 0 {
				if l.dest, err = t.Readlink(l.path); err != nil {
					return nil, err
				}
			}
			links[name] = l
		}
	}
	return links, nil
}

// maxAliases bounds how far a chain of aliases is followed.
const maxAliases = 16

// final follows aliases. A link to a file of another name that is itself a unit
// makes its name an alias; any other link is just where the file is.
func (links unitLinks) final(name string) string {
	for range maxAliases {
		l, ok := links[name]
		other := path.Base(l.dest)
		if _, known := links[other]; !ok || l.dest == "" || other == name || !known || path.Ext(other) != path.Ext(name) {
			return name
		}
		name = other
	}
	return name
}

// findDropIns lists the drop-ins of all names and directories. Of several files
// of one name, systemd takes the first.
func (u *Unit) findDropIns(t *target.Target, dirs []string) error {
	found := map[string]string{}
	var names []string
	for _, sub := range u.dropInDirs(t, dirs) {
		for _, d := range dirs {
			dir := path.Join(d, sub)
			entries, err := t.ReadDir(dir)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			for _, e := range entries {
				file := path.Join(dir, e.Name())
				switch {
				case path.Ext(e.Name()) != ".conf" || e.IsDir():
				case found[e.Name()] != "":
					u.Hidden = append(u.Hidden, file)
				default:
					found[e.Name()] = file
					names = append(names, e.Name())
				}
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		u.DropIns = append(u.DropIns, found[name])
	}
	return nil
}

// dropInDirs are the names of the directories of drop-ins: of each name, of its
// beginnings up to a dash, and of all units of the type. For a template, those of
// single instances count as well: which there will be is not known.
func (u *Unit) dropInDirs(t *target.Target, dirs []string) []string {
	kind := path.Ext(u.Name)
	var subs []string
	add := func(s string) {
		if !slices.Contains(subs, s) {
			subs = append(subs, s)
		}
	}
	for _, n := range u.Names {
		add(n + ".d")
		template, isTemplate := strings.CutSuffix(n, "@"+kind)
		if !isTemplate {
			continue
		}
		for _, d := range dirs {
			entries, _ := t.ReadDir(d)
			for _, e := range entries {
				if strings.HasPrefix(e.Name(), template+"@") && strings.HasSuffix(e.Name(), kind+".d") {
					add(e.Name())
				}
			}
		}
	}
	for _, n := range u.Names {
		prefix, _, _ := strings.Cut(strings.TrimSuffix(n, kind), "@")
		for {
			i := strings.LastIndexByte(strings.TrimSuffix(prefix, "-"), '-')
			if i < 0 {
				break
			}
			prefix = prefix[:i+1]
			add(prefix + kind + ".d")
			add(prefix + "@" + kind + ".d")
		}
	}
	add(strings.TrimPrefix(kind, ".") + ".d")
	return subs
}

// read appends the assignments of a file.
func (u *Unit) read(t *target.Target, file string) error {
	if fi, err := t.Stat(file); err == nil && fi.Mode()&fs.ModeDevice != 0 {
		return nil // a mask, systemd.unit(5)
	}
	text, err := t.ReadFile(file)
	if err != nil {
		return err
	}
	u.settings = append(u.settings, parse(file, string(text))...)
	return nil
}

// parse reads the assignments of a unit file, systemd.syntax(7).
func parse(file, text string) []Setting {
	var out []Setting
	section, joined := "", ""
	for raw := range strings.Lines(strings.TrimPrefix(text, "\uFEFF")) {
		line := strings.TrimRight(raw, "\r\n")
		if l := strings.TrimLeft(line, " \t"); l != "" && strings.ContainsAny(l[:1], "#;") {
			continue // within a line that is continued, too
		}
		line = joined + line
		if bare := strings.TrimRight(line, `\`); (len(line)-len(bare))%2 == 1 {
			joined = line[:len(line)-1] + " "
			continue
		}
		joined = ""
		if line = strings.Trim(line, " \t"); line == "" {
			continue
		}
		if s, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(s, "]")
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if ok {
			out = append(out, Setting{Section: section, Key: strings.TrimRight(key, " \t"), Value: strings.TrimLeft(value, " \t"), File: file})
		}
	}
	return out
}
