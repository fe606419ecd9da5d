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
	"github.com/packer-plugin-totp/packer-plugin-totp/templates"
)

// pamMode is that of the service file and its copy where there is none yet.
const pamMode = 0o644

// pamRewritten reads the PAM service file, and returns what a bake makes of it.
func (f *facts) pamRewritten(t *target.Target) (now, want string, err error) {
	if fi, err := t.Lstat(target.PAMService); err != nil {
		return "", "", err
	} else if !fi.Mode().IsRegular() {
		return "", "", &fs.PathError{Op: "read", Path: target.PAMService, Err: target.ErrNotRegular}
	}
	b, err := t.ReadFile(target.PAMService)
	if err != nil {
		return "", "", err
	}
	want, err = f.pamWith(t, string(b))
	return string(b), want, err
}

// pamWith is a service file with our block in it.
func (f *facts) pamWith(t *target.Target, text string) (string, error) {
	block, err := f.block(t)
	if err != nil {
		return "", err
	}
	entries, err := authEntries(readAs(t, text), target.PAMService, f.pamPassword)
	if err != nil {
		return "", err
	}
	return rewritePAM(text, target.PAMService, f.pamPassword, block, entries)
}

// readAs reads the files of a machine on which the service file has this text.
func readAs(t *target.Target, text string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		if path.Clean(name) == target.PAMService {
			return []byte(text), nil
		}
		return t.ReadFile(name)
	}
}

// soundPAM reports what keeps a service file with our block in it from being
// whole: a line that Linux-PAM does not understand, or none for an account or a
// session, as in a file that was cut short.
func soundPAM(text string) error {
	lines, err := pamLines(target.PAMService, text)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, l := range lines {
		if !l.wellFormed() {
			return &pamError{where: l.where(), what: fmt.Sprintf("%q: malformed line", l.text), fix: repairIt}
		}
		kind, _, file, _ := l.parts()
		if kind == "" { // Debian names its common files after the type
			kind, _, _ = strings.Cut(strings.TrimPrefix(path.Base(file), "common-"), "-")
		}
		has[kind] = true
	}
	for _, kind := range []string{"account", "session"} {
		if !has[kind] {
			return &pamError{where: target.PAMService, what: fmt.Sprintf("no line of type %q: the file was cut short", kind), fix: repairIt}
		}
	}
	return nil
}

// pamRestored is the service file of a system that was baked: from the copy that
// the bake keeps where that is sound, else the one that comes with the agent. The
// remark says which.
func (f *facts) pamRestored(t *target.Target) (text, remark string, err error) {
	if text, err = f.pamKept(t); err == nil {
		return text, "restored from " + target.PAMCopy, nil
	}
	bad := err
	if text, err = f.pamWhole(t); err != nil {
		return "", "", err
	}
	// Another file that it includes may have the entry that is in the way.
	if _, err := f.pamWith(t, text); err != nil {
		return "", "", err
	}
	return text, fmt.Sprintf("replaced by the file that comes with the agent (%v)", bad), nil
}

// pamKept reads the copy. It counts only where nobody but root can have written it,
// and as what it says.
func (f *facts) pamKept(t *target.Target) (string, error) {
	fi, err := t.Lstat(target.PAMCopy)
	if err != nil {
		return "", err
	}
	if !fi.Mode().IsRegular() || !owned(fi) || fi.Mode().Perm()&0o022 != 0 {
		return "", fmt.Errorf("%s: must be a regular file that only root can write", target.PAMCopy)
	}
	b, err := t.ReadFile(target.PAMCopy)
	if err != nil {
		return "", err
	}
	text, err := f.pamWith(t, string(b))
	if err != nil {
		return "", fmt.Errorf("%s: %w", target.PAMCopy, err)
	}
	if err := soundPAM(text); err != nil {
		return "", fmt.Errorf("%s: %w", target.PAMCopy, err)
	}
	return text, nil
}

// pamWhole is the service file that comes with the agent.
func (f *facts) pamWhole(t *target.Target) (string, error) {
	block, err := f.block(t)
	if err != nil {
		return "", err
	}
	name := strings.TrimPrefix(target.PAMCopy, "/") + ".redhat"
	if f.dpkg {
		name = strings.TrimPrefix(target.PAMCopy, "/") + ".debian"
	}
	text, err := templates.Render(name, templates.PAMService{Block: block.text})
	return string(text), err
}

// cutShort reports a service file that is the beginning of its copy and no more.
func (f *facts) cutShort(t *target.Target, now string) error {
	kept, err := f.pamKept(t)
	if begin := strings.TrimRight(now, "\n"); err != nil || len(begin) >= len(strings.TrimRight(kept, "\n")) || !strings.HasPrefix(kept, begin) {
		return nil
	}
	return &pamError{where: target.PAMService, what: "the file was cut short", fix: repairIt}
}

// pamWanted is what the service file is to become. On a machine that was baked, one
// that is lost or damaged is restored; whether also one that has an entry of an
// administrator's in it, the caller says.
func (f *facts) pamWanted(t *target.Target, foreign bool) (now, want, remark string, err error) {
	now, want, err = f.pamRewritten(t)
	if !f.baked {
		return now, want, "", err
	}
	if err == nil {
		err = soundPAM(want)
	}
	if err == nil {
		err = f.cutShort(t, now)
	}
	if err == nil {
		return now, want, "", nil
	}
	var p *pamError
	errors.As(err, &p)
	if p != nil && p.foreign && !foreign {
		return now, "", "", err
	}
	why := err.Error()
	if p != nil {
		why = p.what
	}
	want, remark, err = f.pamRestored(t)
	return now, want, remark + "; it was damaged: " + why, err
}

// pamOK reports whether the service file and who can write it are as they are to be.
func pamOK(t *target.Target, now, want string) bool {
	fi, err := t.Lstat(target.PAMService)
	return err == nil && fi.Mode().IsRegular() && owned(fi) && fi.Mode().Perm()&0o022 == 0 && now == want
}

// keepPAM reports whether the copy is another than the service file, which is to be
// its source.
func keepPAM(t *target.Target, text string) bool {
	same, err := sameFile(t, target.PAMCopy, []byte(text), pamMode)
	return err != nil || !same
}

// pamFileMode is the mode for a new service file.
func pamFileMode(t *target.Target) fs.FileMode {
	if fi, err := t.Lstat(target.PAMService); err == nil && fi.Mode().IsRegular() && fi.Mode().Perm()&0o444 != 0 {
		return fi.Mode().Perm() &^ 0o022
	}
	return pamMode
}

// pamDirs are the directories of service files and modules, free of links.
func (f *facts) pamDirs(t *target.Target) []string {
	dirs := []string{target.PAMDir, target.PAMVendorDir}
	for _, d := range target.PAMModuleDirs[f.arch] {
		if t.IsDir(d) {
			if real, err := t.Resolve(d); err == nil && !slices.Contains(dirs, real) {
				dirs = append(dirs, real)
			}
		}
	}
	return dirs
}
