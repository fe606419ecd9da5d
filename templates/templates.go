// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package templates holds every text that lands on a target machine. The
// directory files mirrors the target's root: what is rendered from
// files/etc/ssh/x is written to /etc/ssh/x.
//
// A file is text with places in it, {{Name}}, for the values of its data. A
// place alone on its line can stand for several lines, or for none. There are no
// conditions and no loops: what they would decide, data.go does.
//
// # Promises
//
// Rendering is pure and strict: a template that asks for something its data
// does not have is an error, never an empty string. Values are put into the
// text as they are.
//
// # Limits
//
// The package does not know what sshd or systemd make of a text; the tests
// ask them. It does without text/template, which would make the linker keep
// every exported method of the agent: 1.4 MB of it.
package templates

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

var (
	// ErrNoTemplate says that there is no template of the wanted name.
	ErrNoTemplate = errors.New("no such template")

	// ErrNoValue says that a template asks for what its data does not have.
	ErrNoValue = errors.New("the data has no such value")

	// ErrOpen says that a place in a template is not closed.
	ErrOpen = errors.New("\"{{\" without \"}}\"")
)

//go:embed files
var files embed.FS

// Data is what fills a template: one of the types of this package.
type Data interface {
	// values returns the text for each place.
	values() map[string]string
}

// Render fills the template of one file. The name is the file's path on the
// target without the leading slash: "etc/ssh/sshd_config.d/00-00-totp.conf".
// nil is the data for templates that ask for nothing.
func Render(name string, data Data) ([]byte, error) {
	text, err := files.ReadFile("files/" + name)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", name, ErrNoTemplate)
	}
	var values map[string]string
	if data != nil {
		values = data.values()
	}
	filled, err := fill(string(text), values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return []byte(filled), nil
}

// Names lists all templates, sorted.
func Names() []string {
	var names []string
	fs.WalkDir(files, "files", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(p, "files/"))
		}
		return err
	})
	return names
}

// fill puts the values into their places, line by line. A value of whole lines
// ends with a newline, so a place alone on its line takes none of its own.
func fill(text string, values map[string]string) (string, error) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		whole := strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(whole, "{{") && strings.Index(whole, "}}") == len(whole)-len("}}") {
			line = whole
		}
		for {
			before, rest, found := strings.Cut(line, "{{")
			b.WriteString(before)
			if !found {
				break
			}
			key, after, closed := strings.Cut(rest, "}}")
			if !closed {
				return "", fmt.Errorf("%.40q: %w", rest, ErrOpen)
			}
			value, ok := values[key]
			if !ok {
				return "", fmt.Errorf("%.40q: %w", key, ErrNoValue)
			}
			b.WriteString(value)
			line = after
		}
	}
	return b.String(), nil
}
