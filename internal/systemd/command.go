// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package systemd

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// ErrNotUnderstood means that a value cannot be evaluated without systemd.
var ErrNotUnderstood = errors.New("not understood")

// Split splits a value into words, as systemd does: at blanks outside of quotes.
// A quote that is not closed ends with the value, as in a variable that is split.
func Split(value string) []string {
	var words []string
	for rest := strings.TrimLeft(value, blanks); rest != ""; rest = strings.TrimLeft(rest, blanks) {
		var word strings.Builder
		quote, i := byte(0), 0
	scan:
		for ; i < len(rest); i++ {
			c := rest[i]
			switch {
			case c == '\\' && i+1 < len(rest):
				i++
				word.WriteByte(rest[i])
			case quote != 0 && c == quote:
				quote = 0
			case quote == 0 && (c == '"' || c == '\''):
				quote = c
			case quote == 0 && strings.IndexByte(blanks, c) >= 0:
				break scan
			default:
				word.WriteByte(c)
			}
		}
		words = append(words, word.String())
		rest = rest[i:]
	}
	return words
}

const blanks = " \t\n\r"

// An Environment is what a unit's commands find in their environment.
type Environment map[string]Variable

// A Variable is a value with the file that set it.
type Variable struct{ Value, File string }

// Environment evaluates Environment=, EnvironmentFile= and UnsetEnvironment= of a
// service, and the manager's DefaultEnvironment=. Files win over values, and of
// two the later one.
func (u *Unit) Environment(t *target.Target) (Environment, error) {
	env := Environment{}
	manager, err := managerSettings(t)
	if err != nil {
		return nil, err
	}
	for _, s := range append(manager.List("Manager", "DefaultEnvironment"), u.List("Service", "Environment")...) {
		if err := plain(s); err != nil {
			return nil, err
		}
		for _, w := range Split(s.Value) {
			if name, value, ok := strings.Cut(w, "="); ok {
				env[name] = Variable{value, s.File}
			}
		}
	}
	for _, s := range u.List("Service", "EnvironmentFile") {
		if err := plain(s); err != nil {
			return nil, err
		}
		pattern, optional := strings.CutPrefix(s.Value, "-")
		files := []string{pattern}
		if dir, base := path.Split(pattern); strings.ContainsAny(base, "*?[") {
			files = nil
			entries, _ := t.ReadDir(path.Clean(dir))
			for _, e := range entries {
				if ok, _ := path.Match(base, e.Name()); ok {
					files = append(files, path.Join(dir, e.Name()))
				}
			}
		}
		for _, file := range files {
			text, err := t.ReadFile(file)
			if optional && errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("%s: EnvironmentFile=%s: %w", s.File, s.Value, err)
			}
			for name, value := range ParseEnvironment(string(text)) {
				env[name] = Variable{value, file}
			}
		}
	}
	for _, s := range u.List("Service", "UnsetEnvironment") {
		for _, w := range Split(s.Value) {
			name, _, _ := strings.Cut(w, "=")
			delete(env, name)
		}
	}
	return env, nil
}

// plain refuses a value with a specifier, systemd.unit(5).
func plain(s Setting) error {
	if strings.Contains(strings.ReplaceAll(s.Value, "%%", ""), "%") {
		return fmt.Errorf("%s: %s=%s: a specifier: %w", s.File, s.Key, s.Value, ErrNotUnderstood)
	}
	return nil
}

// managerSettings are those of system.conf and its drop-ins, as one unit.
func managerSettings(t *target.Target) (*Unit, error) {
	u := new(Unit)
	var dirs []string
	for _, d := range []string{"/etc/systemd", "/run/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd", "/lib/systemd"} {
		if t.IsDir(d) {
			dirs = append(dirs, d)
		}
	}
	for _, d := range dirs {
		if file := path.Join(d, "system.conf"); t.Exists(file) {
			if err := u.read(t, file); err != nil {
				return nil, err
			}
			break
		}
	}
	files := map[string]string{}
	var names []string
	for _, d := range dirs {
		entries, _ := t.ReadDir(path.Join(d, "system.conf.d"))
		for _, e := range entries {
			if name := e.Name(); path.Ext(name) == ".conf" && files[name] == "" {
				files[name] = path.Join(d, "system.conf.d", name)
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	for _, name := range names {
		if err := u.read(t, files[name]); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// ParseEnvironment reads a file of EnvironmentFile=, systemd.exec(5).
func ParseEnvironment(text string) map[string]string {
	env := map[string]string{}
	for rest := text; rest != ""; {
		rest = strings.TrimLeft(rest, " \t\r\n")
		if rest == "" {
			break
		}
		if rest[0] == '#' || rest[0] == ';' {
			rest = afterComment(rest)
			continue
		}
		end := strings.IndexAny(rest, "=\n")
		if end < 0 {
			break
		}
		if rest[end] == '\n' {
			rest = rest[end:]
			continue
		}
		name := strings.TrimRight(rest[:end], " \t\r")
		var value string
		value, rest = environmentValue(rest[end+1:])
		if validVariable(name) {
			env[name] = value
		}
	}
	return env
}

// afterComment skips a comment, which a backslash at its end continues.
func afterComment(s string) string {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\n':
			return s[i:]
		}
	}
	return ""
}

// environmentValue reads a value up to the end of its line.
func environmentValue(s string) (value, rest string) {
	var b strings.Builder
	kept := 0 // what is not blank at the end of an unquoted part
	quote := byte(0)
	fresh := true // no part has begun: blanks do not count, and a quote opens one
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == '\'' && c == '\'' || quote == '"' && c == '"':
			quote, fresh, kept = 0, true, b.Len()
		case quote == '"' && c == '\\' && i+1 < len(s):
			i++
			if strings.IndexByte("\"\\`$", s[i]) < 0 && s[i] != '\n' {
				b.WriteByte('\\')
			}
			if s[i] != '\n' {
				b.WriteByte(s[i])
			}
		case quote != 0:
			b.WriteByte(c)
		case c == '\n':
			return b.String()[:kept], s[i:]
		case c == '\\' && i+1 < len(s):
			i++
			fresh = false
			if s[i] != '\n' {
				b.WriteByte(s[i])
				kept = b.Len()
			}
		case fresh && (c == '"' || c == '\''):
			quote = c
		case c == ' ' || c == '\t' || c == '\r':
			if !fresh {
				b.WriteByte(c)
			}
		default:
			fresh = false
			b.WriteByte(c)
			kept = b.Len()
		}
	}
	if quote != 0 {
		kept = b.Len()
	}
	return b.String()[:kept], ""
}

func validVariable(name string) bool {
	for i, c := range []byte(name) {
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return name != ""
}

// Expand replaces variables in the words of a command: $NAME as a word of its own
// becomes the words of its value, ${NAME} anywhere its value as it is, and $$ one
// dollar sign. See systemd.service(5), "Command Lines".
func Expand(words []string, env Environment) []string {
	var out []string
	for i, w := range words {
		name, ok := strings.CutPrefix(w, "$")
		switch {
		case ok && i > 0 && name != "" && name[0] != '{' && name[0] != '$':
			out = append(out, Split(env[name].Value)...)
		default:
			out = append(out, expandWord(w, env))
		}
	}
	return out
}

func expandWord(w string, env Environment) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(w, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		switch {
		case strings.HasPrefix(after, "$"):
			b.WriteByte('$')
			w = after[1:]
		case strings.HasPrefix(after, "{") && closed:
			b.WriteString(env[name].Value)
			w = rest
		default:
			b.WriteByte('$')
			w = after
		}
	}
}
