// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package templates holds every text that lands on a target machine. The
// directory files mirrors the target's root: what is rendered from
// files/etc/ssh/x is written to /etc/ssh/x.
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
// ask them.
package templates

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/template"
)

// ErrNoTemplate says that there is no template of the wanted name.
var ErrNoTemplate = errors.New("no such template")

//go:embed files
var files embed.FS

var parsed = template.Must(parse())

// Render fills the template of one file. The name is the file's path on the
// target without the leading slash: "etc/ssh/sshd_config.d/00-00-totp.conf".
// The data is a struct or map that has what the template asks for; nil serves
// the templates that ask for nothing.
func Render(name string, data any) ([]byte, error) {
	t := parsed.Lookup(name)
	if t == nil {
		return nil, fmt.Errorf("%q: %w", name, ErrNoTemplate)
	}
	if data == nil {
		data = map[string]any{}
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
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

func parse() (*template.Template, error) {
	root := template.New("").Option("missingkey=error")
	for _, name := range Names() {
		b, err := files.ReadFile("files/" + name)
		if err != nil {
			return nil, err
		}
		if _, err := root.New(name).Parse(string(b)); err != nil {
			return nil, err
		}
	}
	return root, nil
}
