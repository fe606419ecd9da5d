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
		return nil, fmt.Errorf("%s: %w: files that include each other", name, ErrPAM)
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
			return nil, fmt.Errorf("%s:%d: %q can be read in two ways: %w; write each entry in one line, without carriage returns", name, n, line, ErrPAM)
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

// harmless are modules that let nobody in and ask for nothing: where they must
// not fail, they can stand beside our line.
var harmless = []string{"pam_env.so", "pam_nologin.so", "pam_faildelay.so"}

// harmless tells whether an entry only keeps out, or does no more than prepare.
func (e pamEntry) harmless() bool {
	f := strings.Fields(e.text)
	return len(f) > 2 && strings.EqualFold(f[0], "auth") && mustSucceed(f[1]) && slices.Contains(harmless, f[2]) &&
		!slices.Contains(f, "successok") // pam_nologin's word for a success of its own
}

// mustSucceed tells whether a control means that the whole fails with the module.
func mustSucceed(control string) bool { return control == "required" || control == "requisite" }

// byGuide tells whether an entry is one of the module's, with which a manual guide
// has the code asked for.
func (e pamEntry) byGuide() bool {
	f := strings.Fields(e.text)
	return len(f) > 2 && strings.EqualFold(f[0], "auth") && mustSucceed(f[1]) && f[2] == target.PAMModule
}

// rewritePAM puts our line in the place of the one that asks for a password, or
// of the one by which a manual guide has a code asked for instead, and leaves
// every other byte as it is. The text is unchanged where our line is the only one
// that authenticates already. Anything else is [ErrPAM].
func rewritePAM(text, name, password, ours string, entries []pamEntry) (string, error) {
	const remedy = "; the agent's line must be the only one, remove this one (and put back %q where there is no other) before the bake"
	var pass, guides, mine []pamEntry
	for _, e := range entries {
		switch {
		case e.harmless():
		case e.file == name && e.text == password:
			pass = append(pass, e)
		case e.file == name && e.text == ours:
			mine = append(mine, e)
		case e.file == name && e.byGuide():
			guides = append(guides, e)
		default:
			return "", fmt.Errorf("%s: %q: %w"+remedy, e.where(), e.text, ErrPAM, password)
		}
	}
	theirs := append(pass, guides...)
	switch {
	case len(mine) == 1 && len(theirs) == 0:
		return text, nil
	case len(mine) == 0 && len(theirs) == 1:
	case len(mine)+len(theirs) == 0:
		return "", fmt.Errorf("%s: no line %q: %w; put that line where the password is to be asked for, the bake replaces it", name, password, ErrPAM)
	default:
		e := append(mine, theirs...)[1]
		return "", fmt.Errorf("%s: %q: %w"+remedy, e.where(), e.text, ErrPAM, password)
	}
	var b strings.Builder
	n := 0
	for raw := range strings.Lines(text) {
		n++
		if n == theirs[0].line {
			b.WriteString(ours + "\n")
		}
		if n < theirs[0].line || n > theirs[0].last {
			b.WriteString(raw)
		}
	}
	return b.String(), nil
}

// pamFile reads the PAM service file, and what it is to become.
func (f *facts) pamFile(t *target.Target) (now, want string, err error) {
	b, err := t.ReadFile(target.PAMService)
	if err != nil {
		return "", "", err
	}
	ours, err := pamLine()
	if err != nil {
		return "", "", err
	}
	entries, err := authEntries(t.ReadFile, target.PAMService, f.pamPassword)
	if err != nil {
		return "", "", err
	}
	want, err = rewritePAM(string(b), target.PAMService, f.pamPassword, ours, entries)
	return string(b), want, err
}
