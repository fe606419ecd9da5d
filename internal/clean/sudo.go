// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package clean

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

const (
	sudoersFile = "/etc/sudoers"
	sudoersDir  = "/etc/sudoers.d"
	visudo      = "/usr/sbin/visudo"
)

// sudoers are the files of sudo's rules.
func sudoers(t *target.Target) ([]string, error) {
	entries, err := t.ReadDir(sudoersDir)
	if missingIsFine(err) != nil {
		return nil, err
	}
	var files []string
	if t.IsRegular(sudoersFile) {
		files = append(files, sudoersFile)
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			files = append(files, path.Join(sudoersDir, e.Name()))
		}
	}
	return files, nil
}

// dropSudoRules takes a user out of all rules, and removes the files that say
// nothing after that, but for sudoers itself. What sudo would then not read is
// put back.
func (c *cleaner) dropSudoRules(user string) error {
	files, err := sudoers(c.t)
	if err != nil {
		return err
	}
	old := map[string][]byte{}
	for _, name := range files {
		b, err := c.t.ReadFile(name)
		if err != nil {
			return err
		}
		text, says := withoutSudoRules(string(b), user)
		if text == string(b) {
			continue
		}
		old[name] = b
		if says || name == sudoersFile {
			err = c.t.WriteFile(name, []byte(text), 0o440)
		} else {
			err = c.t.Remove(name)
		}
		if err != nil {
			return err
		}
	}
	if len(old) == 0 || !c.t.IsRegular(visudo) {
		return nil
	}
	if _, err := c.t.Run(c.ctx, visudo, "-c", "-q"); err != nil {
		for name, b := range old {
			if werr := c.t.WriteFile(name, b, 0o440); werr != nil {
				return werr
			}
		}
		return fmt.Errorf("without the rules of %q, which are back: %w; remove them in the build", user, err)
	}
	return nil
}

// withoutSudoRules takes a user out of a file of sudoers(5): from the lists of
// rules, of Defaults for some users and of aliases. A line goes where nobody else
// is in its list, and so does the comment that cloud-init puts above. An alias
// without a member stays, as one that is nobody.
func withoutSudoRules(text, user string) (kept string, says bool) {
	var b strings.Builder
	for _, line := range sudoLines(text) {
		f := strings.Fields(line)
		if len(f) > 0 && f[0][0] == '#' && !strings.HasPrefix(f[0], "#include") && !isUID(f[0]) {
			if strings.TrimSpace(line) != "# User rules for "+user {
				b.WriteString(line)
			}
			continue
		}
		if line = withoutSudoUser(line, user); strings.TrimSpace(line) != "" {
			says = true
		}
		b.WriteString(line)
	}
	return b.String(), says
}

// isUID tells a user by number from a comment.
func isUID(word string) bool { return len(word) > 1 && word[1] >= '0' && word[1] <= '9' }

// sudoLines splits a file into lines, each with those that continue it.
func sudoLines(text string) []string {
	var lines []string
	continued := false
	for raw := range strings.Lines(text) {
		if continued {
			lines[len(lines)-1] += raw
		} else {
			lines = append(lines, raw)
		}
		body := strings.TrimRight(raw, "\r\n")
		comment := !continued && strings.HasPrefix(strings.TrimSpace(raw), "#") && !isUID(strings.TrimSpace(raw))
		continued = !comment && strings.HasSuffix(body, `\`)
	}
	return lines
}

// withoutSudoUser takes a user out of one line; the result is empty where the
// line was about nobody else.
func withoutSudoUser(line, user string) string {
	first, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	first, _, _ = strings.Cut(first, "\t")
	switch {
	case first == "User_Alias":
		// NAME = list, and more of them after a colon
		begin := strings.Index(line, first) + len(first)
		parts := strings.Split(line[begin:], ":")
		for i, part := range parts {
			if name, list, ok := strings.Cut(part, "="); ok {
				rest, empty := withoutItem(list, user)
				if empty {
					rest = " !ALL" + list[len(strings.TrimRight(list, sudoBlanks)):]
				}
				parts[i] = name + "=" + rest
			}
		}
		return line[:begin] + strings.Join(parts, ":")
	case strings.HasPrefix(first, "Defaults:"):
		begin := strings.Index(line, "Defaults:") + len("Defaults:")
		rest, empty := withoutItem(line[begin:], user)
		if empty {
			return ""
		}
		return line[:begin] + rest
	case strings.HasPrefix(first, "Defaults") || strings.HasSuffix(first, "_Alias"):
		return line
	}
	rest, empty := withoutItem(line, user)
	if empty {
		return ""
	}
	return rest
}

// sudoBlanks stand between the words of sudoers; a backslash at the end of a line
// does, too.
const sudoBlanks = " \t\r\n\\"

// withoutItem takes a user out of the list, separated by commas, at the beginning
// of the text. What forbids something to the user stays.
func withoutItem(text, user string) (rest string, empty bool) {
	type item struct{ begin, end int }
	var items []item
	at := 0
	for {
		for at < len(text) && strings.IndexByte(sudoBlanks, text[at]) >= 0 {
			at++
		}
		begin, quoted := at, false
		for at < len(text) && (quoted || strings.IndexByte(sudoBlanks+",=", text[at]) < 0) {
			quoted = quoted != (text[at] == '"')
			at++
		}
		items = append(items, item{begin, at})
		next := at
		for next < len(text) && strings.IndexByte(sudoBlanks, text[next]) >= 0 {
			next++
		}
		if next == len(text) || text[next] != ',' {
			break
		}
		at = next + 1
	}
	is := func(i item) bool { return strings.Trim(text[i.begin:i.end], `"`) == user }
	if !slices.ContainsFunc(items, is) {
		return text, false
	}
	var kept []string
	for _, i := range items {
		if !is(i) {
			kept = append(kept, text[i.begin:i.end])
		}
	}
	if len(kept) == 0 {
		return "", true
	}
	return text[:items[0].begin] + strings.Join(kept, ", ") + text[items[len(items)-1].end:], false
}
