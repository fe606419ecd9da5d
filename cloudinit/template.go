// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"path"
	"regexp"
	"strings"
)

// What can be found in a template of a cloud-config, which is no YAML before the
// instance has filled it in: lines, as people write them.
var (
	template         = regexp.MustCompile(`(?i)^\s*## template: *jinja[^\n]*\n\s*#cloud-config\b`)
	templateUsers    = regexp.MustCompile(`(?im)^["']?users["']?[ \t]*:`)
	templatePassword = regexp.MustCompile(`(?im)^["']?ssh_pwauth["']?[ \t]*:[ \t]*["']?(` + strings.Join(yes, "|") + `)["']?[ \t]*(?:#.*)?\r?$`)
	templateRoot     = regexp.MustCompile(`(?im)^["']?disable_root["']?[ \t]*:[ \t]*["']?(` + strings.Join(yes, "|") + `)["']?[ \t]*(?:#.*)?\r?$`)
	templateKey      = regexp.MustCompile(`(?m)^["']?(` + moduleKey + `)["']?[ \t]*:`)
	templateLists    = regexp.MustCompile(`(?m)^["']?(users|write_files)["']?[ \t]*:([^\n]*)`)
	templateInstall  = regexp.MustCompile(`(?m)^["']?(autoinstall)["']?[ \t]*:`)
	templateMounts   = regexp.MustCompile(`(?m)^["']?mounts["']?[ \t]*:`)
	templateMount    = regexp.MustCompile(`(?m)(?:\[|-)[ \t]*[^\s,\[\]]+[ \t]*,[ \t]*["']?(/[^\s"',\]]+)["']?`)
	templateTop      = regexp.MustCompile(`(?m)^["']?[A-Za-z_]`)
	templatePath     = regexp.MustCompile(`(?m)^(?:[^#\n]*[\s{,-])?["']?path["']?[ \t]*:[ \t]*["']?(/[^\s"',}]+)`)
)

// lookInTemplate looks for a list of users, since the image's own user, whom it may
// leave out, must not come with ours; and for what clashes.
func (m *merger) lookInTemplate(doc []byte) Errors {
	if !template.Match(doc) {
		return nil // a script, say
	}
	m.users = m.users || templateUsers.Match(doc)
	var errs Errors
	clash := func(field string, found []int, rule error, fix string) {
		line, column := position(doc, found[2])
		errs = append(errs, &Error{Path: field, Line: line, Column: column, Value: string(doc[found[2]:found[3]]), Rule: rule, Fix: fix})
	}
	for _, found := range templatePath.FindAllSubmatchIndex(doc, -1) {
		name := string(doc[found[2]:found[3]])
		if path.Clean(name) == m.spec.File() {
			clash("write_files", found, ErrSameFile, fixSameFile)
			continue
		}
		line, column := position(doc, found[2])
		errs = append(errs, m.loginFile(Error{Path: "write_files", Line: line, Column: column, Value: name}, "", false)...)
	}
	const lists = 8 // a template may have one list or another
	for _, found := range templateLists.FindAllSubmatchIndex(doc, lists) {
		if rule := notAList(string(doc[found[4]:found[5]]), doc[found[5]:]); rule != nil {
			clash(string(doc[found[2]:found[3]]), found, rule, `write a list, with each item in a line that begins with "- "`)
		}
	}
	if found := templateInstall.FindSubmatchIndex(doc); found != nil {
		clash("autoinstall", found, ErrInstaller, fixInstaller)
	}
	if found := templateMounts.FindIndex(doc); found != nil {
		end := len(doc)
		if next := templateTop.FindIndex(doc[found[1]:]); next != nil {
			end = found[1] + next[0]
		}
		for _, mount := range templateMount.FindAllSubmatchIndex(doc[found[1]:end], -1) {
			for i := range mount {
				mount[i] += found[1]
			}
			if m.hides(string(doc[mount[2]:mount[3]])) {
				clash("mounts", mount, ErrHidden, fixMounts)
			}
		}
	}
	if found := templateKey.FindSubmatchIndex(doc); found != nil {
		clash(moduleKey, found, ErrTwoCarriers, fixSameFile)
	}
	if found := templatePassword.FindSubmatchIndex(doc); found != nil {
		clash("ssh_pwauth", found, ErrPasswordAuth, fixPasswordAuth)
	}
	if found := templateRoot.FindSubmatchIndex(doc); found != nil {
		if _, is := m.enrolled("root"); is {
			clash(disableRoot, found, ErrDisableRoot, fixDisableRoot)
		}
	}
	return errs
}

// notAList returns what is wrong with the value of a key whose value must be a list, as
// far as the text before it is filled in tells: what follows the colon, and the lines
// after that.
func notAList(value string, rest []byte) error {
	value, _, _ = strings.Cut(" "+value, " #")
	switch value = strings.TrimSpace(value); {
	case value == "":
	case value == "~" || strings.EqualFold(value, "null"):
		return ErrEmpty
	case strings.HasPrefix(value, "{{"), strings.HasPrefix(value, "{%"), strings.HasPrefix(value, "{#"):
		return nil // it may be filled in with one
	case strings.ContainsAny(value[:1], "[*&!"):
		return nil
	default:
		return ErrType
	}
	for line := range bytes.Lines(rest) {
		text := strings.TrimSpace(string(line))
		switch {
		case text == "", text[0] == '#', strings.HasPrefix(text, "{%"), strings.HasPrefix(text, "{#"):
		case strings.HasPrefix(text, "{{"), text == "-", strings.HasPrefix(text, "- "), strings.ContainsAny(text[:1], "[*&!"):
			return nil
		case line[0] != ' ' && line[0] != '\t':
			return ErrEmpty
		default:
			return ErrType
		}
	}
	return ErrEmpty
}
