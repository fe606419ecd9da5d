// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// SSHDDirective splits a line of sshd_config(5) into its keyword, in lower case,
// and its arguments. Keyword and arguments may be joined by "=", and quoted.
func SSHDDirective(line string) (keyword string, args []string) {
	line = strings.Trim(line, " \t\r\n\f")
	if line == "" || line[0] == '#' {
		return "", nil
	}
	if quoted, ok := strings.CutPrefix(line, `"`); ok { // sshd takes a quoted keyword
		line = strings.Replace(quoted, `"`, " ", 1)
	}
	end := strings.IndexAny(line, " \t=\"")
	if end < 0 {
		return strings.ToLower(line), nil
	}
	rest := strings.TrimLeft(line[end:], " \t")
	rest = strings.TrimPrefix(rest, "=")
	for _, a := range strings.Fields(rest) {
		if a[0] == '#' {
			break
		}
		args = append(args, strings.Trim(a, `"'`))
	}
	return strings.ToLower(line[:end]), args
}

// SSHDBanner returns the file that sshd shows before a login, as its
// configuration says outside of Match blocks, or "" for none. What the agent
// itself has sshd include under /run is left out. See sshd_config(5), Banner and
// Include.
func (t *Target) SSHDBanner() (file string, err error) {
	files := maxIncluded
	value, err := t.sshdValue(SSHDConfig, "banner", 0, &files)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if strings.EqualFold(value, "none") {
		value = ""
	}
	return value, err
}

const (
	// maxIncludes is how deep sshd follows Include lines.
	maxIncludes = 16

	// maxIncluded is how many files are read in all. Files that include each other
	// twice would be read 2^16 times.
	maxIncluded = 512
)

// sshdValue returns the first value of a keyword in a file and those that it
// includes. It reads no more files than are left.
func (t *Target) sshdValue(name, wanted string, depth int, left *int) (string, error) {
	if depth > maxIncludes || *left == 0 {
		return "", nil
	}
	*left--
	text, err := t.ReadFile(name)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		keyword, args := SSHDDirective(line)
		switch {
		case keyword == wanted && len(args) > 0:
			return args[0], nil
		case keyword == "match":
			return "", nil // to the end of the file
		case keyword != "include":
			continue
		}
		for _, pattern := range args {
			for _, file := range t.SSHDIncluded(pattern) {
				value, err := t.sshdValue(file, wanted, depth+1, left)
				if err == nil && value != "" {
					return value, nil
				}
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return "", err
				}
			}
		}
	}
	return "", nil
}

// SSHDIncluded lists the files of one pattern of an Include line, in the order of
// sshd. A pattern in the name of a directory is not followed, nor what the agent
// itself has sshd include under /run.
func (t *Target) SSHDIncluded(pattern string) []string {
	if !path.IsAbs(pattern) {
		pattern = path.Join(SSHDir, pattern)
	}
	if pattern == NoticeConf || pattern == ClosedConf {
		return nil
	}
	dir, base := path.Split(pattern)
	if !strings.ContainsAny(base, `*?[\`) {
		return []string{pattern}
	}
	entries, err := t.ReadDir(path.Clean(dir))
	if err != nil {
		return nil
	}
	var files []string
	for _, e := range entries {
		if ok, err := path.Match(base, e.Name()); ok && err == nil && !strings.HasPrefix(e.Name(), ".") {
			files = append(files, path.Join(dir, e.Name()))
		}
	}
	slices.Sort(files)
	return files
}
