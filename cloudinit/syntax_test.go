// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

// TestSyntaxCauses: what people paste and render is named as what it is, at its place.
func TestSyntaxCauses(t *testing.T) {
	const head = "#cloud-config\n"
	script := head + "write_files:\n  - path: /usr/local/bin/x\n    content: |\n      #!/bin/sh\n"
	b64 := base64.StdEncoding.EncodeToString
	mime := "Content-Type: multipart/mixed; boundary=\"=\"\nMIME-Version: 1.0\n\n--=\n\n#!/bin/sh\n--=--\n"
	for _, tt := range []struct {
		name, doc    string
		line, column int
		rule         error
		fix          string
	}{
		{"non-breaking indentation", head + "users:\n\u00a0 - name: mara\n\u00a0 \u00a0 shell: /bin/bash\npackages:\n\u00a0 - nginx\n", 3, 1, ErrBlank, fixBlank},
		{"non-breaking after spaces", head + "users:\n  - name: mara\n  \u00a0 shell: /bin/bash\n", 4, 3, ErrBlank, fixBlank},
		{"narrow no-break space", head + "users:\n\u202f\u202f- name: mara\n", 3, 1, ErrBlank, fixBlank},
		{"ideographic space", head + "users:\n\u3000- name: mara\n", 3, 1, ErrBlank, fixBlank},
		{"non-breaking after a colon", head + "hostname: web\nusers:\u00a0[mara]\n", 3, 7, ErrBlank, fixBlank},
		{"zero-width space", head + "users:\n\u200b  - name: mara\n", 3, 1, ErrBlank, fixBlank},
		{"non-breaking first line", "\u00a0#cloud-config\nusers: []\n", 1, 1, ErrBlank, fixBlank},
		{"non-breaking list that is YAML", head + "packages:\n\u00a0\u00a0- nginx\n", 3, 1, ErrBlank, fixBlank},
		{"non-breaking key", head + "a: b\n\u00a0packages: [nginx]\n", 3, 1, ErrBlank, fixBlank},
		{"non-breaking value", head + "hostname: \u00a0web\n", 2, 11, ErrBlank, fixBlank},

		{"tab in a script", script + "      for i in 1 2; do\n\techo $i\n      done\n", 7, 1, ErrTab, ""},
		{"tab at a script's second line", script + "\techo\n", 6, 1, ErrTab, ""},
		{"two tabs in a script", script + "      if true; then\n\t\techo\n\tfi\n", 7, 1, ErrTab, ""},
		{"spaces and a tab in a script", script + "      if true; then\n    \techo\n      fi\n", 7, 5, ErrTab, ""},

		{"Terraform for", head + "users:\n%{ for u in users ~}\n  - name: ${u.name}\n%{ endfor ~}\n", 3, 1, ErrTemplate, fixTerraform},
		{"Terraform if", head + "users:\n  - default\n  %{~ if admin ~}\n  - admin\n  %{~ endif ~}\n", 4, 3, ErrTemplate, fixTerraform},
		{"Terraform at the top", "%{ if x }#cloud-config%{ endif }\nusers: []\n", 1, 1, ErrTemplate, fixTerraform},
		{"jinja block", head + "users:\n{% for u in users %}\n  - name: x\n{% endfor %}\n", 3, 1, ErrTemplate, fixJinja},
		{"jinja comment", head + "users:\n{# all of them #}\n  - name: x\n", 3, 1, ErrTemplate, fixJinja},
		{"ERB", head + "users:\n<% users.each do |u| %>\n  - name: <%= u %>\n<% end %>\n", 3, 1, ErrTemplate, fixERB},

		{"base64", b64([]byte(head + "users: []\n")), 1, 1, ErrBase64, ""},
		{"base64 of a multi-part", b64([]byte(mime)) + "\n", 1, 1, ErrBase64, ""},
		{"base64 of gzip", b64([]byte(gz(head))), 1, 1, ErrBase64, ""},
		{"base64 in lines", string(wrapped([]byte(head + strings.Repeat("# filler\n", 40)))), 1, 1, ErrBase64, ""},
		{"base64 without padding", strings.TrimRight(b64([]byte("#!/bin/sh\necho\n")), "="), 1, 1, ErrBase64, ""},
		{"base64 for URLs", base64.URLEncoding.EncodeToString([]byte(head + "# ???>>>~~~\n")), 1, 1, ErrBase64, ""},
		{"base64 of something else", b64([]byte("hello")), 1, 1, ErrHeader, headerFix},
		{"Terraform's output", "<<EOT\n#cloud-config\nusers: []\nEOT\n", 1, 1, ErrHeader, ""},

		// None of those.
		{"a script with a non-breaking space", script + "      echo 'a\u00a0b'\nusers: [a\n", 7, 10, ErrSyntax, fixSyntax},
		{"a script of a template", script + "      echo '{% x %}' %{ if x }\n\n\n\nusers: [a\n", 10, 10, ErrSyntax, fixSyntax},
		{"a script with tabs", script + "      if\n      \tx\n      fi\n\n\nusers: [a\n", 11, 10, ErrSyntax, fixSyntax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := anna(annaKey).Merge("", []byte(tt.doc))
			e := new(Error)
			if !errors.As(err, &e) || !errors.Is(e.Rule, tt.rule) || e.Line != tt.line || e.Column != tt.column {
				t.Fatalf("%v; want %d:%d %v", err, tt.line, tt.column, tt.rule)
			}
			if e.Fix == "" || tt.fix != "" && e.Fix != tt.fix {
				t.Errorf("the remedy is %q", e.Fix)
			}
		})
	}
	for name, doc := range map[string]string{
		"odd blanks in text": head + "a: 'x\u00a0y'\nb: x\u00a0y\nc: |\n  \u00a0x\nd: \"\u00a0x\" #\u00a0y\n",
	} {
		if _, err := anna(annaKey).Merge("", []byte(doc)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
