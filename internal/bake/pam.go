// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A pamEntry is a line of a PAM service file that takes part in
// authentication, pam.d(5).
type pamEntry struct {
	file string
	line int // the first one, from 1, where backslashes continue it
	last int
	text string // continued lines joined, comment removed, one blank between fields
}

func (e pamEntry) where() string { return fmt.Sprintf("%s:%d", e.file, e.line) }

// parts splits an entry into its type, in lower case and without the dash of one
// that may be missing, its control, its module and the module's arguments. A
// control in brackets holds blanks. The control of an include is "@include".
func (e pamEntry) parts() (kind, control, module string, args []string) {
	kind, rest, _ := strings.Cut(e.text, " ")
	kind = strings.ToLower(kind)
	if kind == "@include" {
		return "", kind, rest, nil
	}
	kind = strings.TrimPrefix(kind, "-")
	if end := strings.Index(rest, "]"); strings.HasPrefix(rest, "[") && end > 0 {
		control, rest = rest[:end+1], strings.TrimPrefix(rest[end+1:], " ")
	} else {
		control, rest, _ = strings.Cut(rest, " ")
	}
	module, rest, _ = strings.Cut(rest, " ")
	return kind, control, module, strings.Fields(rest)
}

// wellFormed reports whether Linux-PAM understands an entry. It fails the whole
// service, or one type of it, where it does not.
func (e pamEntry) wellFormed() bool {
	kind, control, module, _ := e.parts()
	known := kind == "" || slices.Contains([]string{"auth", "account", "password", "session"}, kind)
	return known && control != "" && module != "" && (control[0] != '[' || control[len(control)-1] == ']')
}

// module is the name of the module that the entry calls; empty for an include.
func (e pamEntry) module() string {
	for _, f := range strings.Fields(e.text) {
		if strings.HasSuffix(f, ".so") {
			return path.Base(f)
		}
	}
	return ""
}

// maxPAMDepth is Linux-PAM's own limit of nested includes.
const maxPAMDepth = 32

// authEntries reads the lines of a PAM file that authenticate, those of files
// that it includes among them. The line password is not followed. One that
// includes a file which is not there is itself an entry: Linux-PAM refuses
// every login then.
func authEntries(read func(name string) ([]byte, error), name, password string) ([]pamEntry, error) {
	return authEntriesIn(read, name, password, 0)
}

func authEntriesIn(read func(name string) ([]byte, error), name, password string, depth int) ([]pamEntry, error) {
	if depth > maxPAMDepth {
		return nil, &pamError{where: name, what: "files that include each other", fix: "remove the include"}
	}
	b, err := read(name)
	if err != nil {
		return nil, err
	}
	lines, err := pamLines(name, string(b))
	if err != nil {
		return nil, err
	}
	var es []pamEntry
	for _, l := range lines {
		f := strings.Fields(l.text)
		switch first := strings.ToLower(f[0]); {
		case l.text == password:
			es = append(es, l)
		case first == "@include" && len(f) == 2,
			first == "auth" && len(f) == 3 && (f[1] == "include" || f[1] == "substack"):
			// "auth include postlogin" is in the stock file of the RHEL family, and
			// adds nothing. Whatever file names it, a relative name begins here.
			file := f[len(f)-1]
			if !path.IsAbs(file) {
				file = path.Join(target.PAMDir, file)
			}
			inner, err := authEntriesIn(read, file, password, depth+1)
			if errors.Is(err, fs.ErrNotExist) {
				inner, err = []pamEntry{l}, nil
			}
			if err != nil {
				return nil, err
			}
			es = append(es, inner...)
		case first == "auth", first == "-auth", first == "@include":
			es = append(es, l)
		}
	}
	return es, nil
}

// maxPAMLine is below the 1023 bytes after which Linux-PAM before 1.6 takes the
// rest of a line, that of a comment too, for a line of its own.
const maxPAMLine = 1000

// pamLines splits a PAM file into its entries, without blank lines and
// comments. Where what Linux-PAM makes of a line is not what it looks like, or
// depends on the version, it is [ErrPAM]: a carriage return belongs to the last
// word, a comment ends an entry also after a backslash, and one that goes on
// passes over comments and blank lines, or does not.
func pamLines(name, text string) ([]pamEntry, error) {
	var es []pamEntry
	var cur *pamEntry
	n := 0
	for raw := range strings.Lines(text) {
		n++
		line, _, comment := strings.Cut(strings.TrimSuffix(raw, "\n"), "#")
		line = strings.Trim(line, " \t")
		body, continued := strings.CutSuffix(line, `\`)
		if len(raw) > maxPAMLine || strings.ContainsAny(line, "\r\x00") || comment && continued || cur != nil && line == "" {
			return nil, &pamError{where: fmt.Sprintf("%s:%d", name, n), what: fmt.Sprintf("%q: versions of Linux-PAM read this line differently", line),
				fix: "write each entry in one line, without carriage returns"}
		}
		if cur == nil {
			es = append(es, pamEntry{file: name, line: n})
			cur = &es[len(es)-1]
		}
		cur.text += " " + body
		cur.last = n
		if !continued {
			cur = nil
		}
	}
	kept := es[:0]
	for _, e := range es {
		if e.text = strings.Join(strings.Fields(e.text), " "); e.text != "" {
			kept = append(kept, e)
		}
	}
	return kept, nil
}
