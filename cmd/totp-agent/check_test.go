// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
)

// The exit status of check is that of the worst finding, and each line begins with its
// severity.
func TestJudge(t *testing.T) {
	for _, test := range []struct {
		severities []bake.Severity
		want       int
	}{
		{nil, 0},
		{[]bake.Severity{bake.Warning, bake.Notice}, 0},
		{[]bake.Severity{bake.Degraded, bake.Warning}, 1},
		{[]bake.Severity{bake.Critical, bake.Degraded, bake.Notice}, 3},
	} {
		var fs []bake.Finding
		for _, s := range test.severities {
			fs = append(fs, bake.Finding{ID: "id", Severity: s})
		}
		status := 0
		if err := judge(fs); err != nil {
			status = exitStatus(err)
		}
		if status != test.want {
			t.Errorf("%v: exit %d, want %d", test.severities, status, test.want)
		}
		var b strings.Builder
		printFindings(&b, fs)
		for i, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
			if len(fs) > 0 && !strings.HasPrefix(line, string(fs[i].Severity)+": id: ") {
				t.Errorf("%q", line)
			}
		}
	}
}
