// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
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
		if path.Clean(string(doc[found[2]:found[3]])) == m.spec.File() {
			clash("write_files", found, ErrSameFile, fixSameFile)
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
