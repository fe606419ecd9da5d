// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"
)

// A Finding is one thing that is not as bake left it.
type Finding struct {
	ID       string   `json:"id"`   // what kind, for programs: "pam-line", "file-mode"
	Path     string   `json:"path"` // the file, with ":LINE" where one line is meant
	What     string   `json:"what"`
	Fix      string   `json:"fix"`
	Severity Severity `json:"severity"`
}

// Severity is how bad a finding is.
type Severity string

const (
	// Critical: a login may succeed without a code, or all users are locked out.
	Critical Severity = "critical"
	// Degraded: the login holds by another layer, or something is missing that
	// a login does not need.
	Degraded Severity = "degraded"
	// Warning: what the image is to do for its users is not at stake, but a login
	// may fail that should not: the clock, a firewall. No check fails for it.
	Warning Severity = "warning"
	// Notice: as the policy has it, and worth knowing.
	Notice Severity = "notice"
)

// severities, worst first.
var severities = []Severity{Critical, Degraded, Warning, Notice}

// The remedy that fits most findings.
const bakeAgain = "run: totp-agent bake --again"

// Worst is the severity of the worst finding; "" if there is none.
func Worst(fs []Finding) Severity {
	for _, s := range severities {
		if slices.ContainsFunc(fs, func(f Finding) bool { return f.Severity == s }) {
			return s
		}
	}
	return ""
}

// arrange sorts findings, the worst first, and makes one of those that one command
// on a directory has caused.
func arrange(fs []Finding) []Finding {
	type cause struct {
		id, dir, what string
		severity      Severity
	}
	causeOf := func(f Finding) cause { return cause{f.ID, path.Dir(f.Path), f.What, f.Severity} }
	paths := map[cause][]string{}
	for _, f := range fs {
		if f.ID == "file-mode" || f.ID == "file-owner" {
			paths[causeOf(f)] = append(paths[causeOf(f)], f.Path)
		}
	}
	var out []Finding
	for _, f := range fs {
		c := causeOf(f)
		all := paths[c]
		switch {
		case len(all) < 2:
		case f.Path != all[0]:
			continue
		default:
			var names []string
			for _, p := range all {
				names = append(names, path.Base(p))
			}
			f.Fix = strings.ReplaceAll(f.Fix, f.Path, strings.Join(all, " "))
			f.Path, f.What = c.dir, f.What+": "+firstOf(names)
		}
		out = append(out, f)
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity))
	})
	return out
}

// firstOf names the first of many.
func firstOf(names []string) string {
	const most = 8
	if n := len(names) - most; n > 1 {
		return fmt.Sprintf("%s and %d others", strings.Join(names[:most], ", "), n)
	}
	return strings.Join(names, ", ")
}
