// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target_test

import (
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

func TestSSHDBanner(t *testing.T) {
	const main, dir = target.SSHDConfig, target.SSHDDropInDir
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no sshd":             {nil, ""},
		"nothing":             {map[string]string{main: "Port 22\n#Banner /etc/issue\n"}, ""},
		"banner":              {map[string]string{main: "Port 22\n banner=\"/etc/issue.net\" # all\nBanner /etc/other\n"}, "/etc/issue.net"},
		"none":                {map[string]string{main: "Banner none\nBanner /etc/issue\n"}, ""},
		"in a Match block":    {map[string]string{main: "Match User a\nBanner /etc/issue\n"}, ""},
		"included, by order":  {map[string]string{main: "Include /etc/ssh/sshd_config.d/*.conf\nBanner /etc/main\n", dir + "/b.conf": "Banner /etc/b\n", dir + "/a.conf": "Banner /etc/a\n", dir + "/0.txt": "Banner /etc/0\n"}, "/etc/a"},
		"included, relative":  {map[string]string{main: "Include nothing.conf sshd_config.d/a.conf\n", dir + "/a.conf": "Banner /etc/a\n"}, "/etc/a"},
		"Match in an include": {map[string]string{main: "Include sshd_config.d/*.conf\nBanner /etc/main\n", dir + "/a.conf": "Match all\nBanner /etc/a\n"}, "/etc/main"},
		"ours":                {map[string]string{main: "Include " + target.NoticeConf + "\nBanner /etc/main\n", target.NoticeConf: "Banner " + target.Banner + "\n"}, "/etc/main"},
		"includes itself":     {map[string]string{main: "Include " + main + "\nBanner /etc/main\n"}, "/etc/main"},
	} {
		t.Run(name, func(t *testing.T) {
			tg, _ := targettest.New(t)
			for file, text := range tt.files {
				targettest.Put(t, tg, file, text, 0o600)
			}
			if got, err := tg.SSHDBanner(); err != nil || got != tt.want {
				t.Errorf("%q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// FuzzSSHDBanner reads sshd's main file and a file that it includes. The search ends for
// every input, and the value is one that a Banner line of one of the two has.
func FuzzSSHDBanner(f *testing.F) {
	f.Add("Include /etc/ssh/sshd_config.d/*.conf\nBanner /etc/main\n", "Banner /etc/issue.net\n")
	f.Add("Include sshd_config.d/*\n", "Match all\nBanner /etc/a\n")
	f.Add(strings.Repeat("Include /etc/ssh/sshd_config\n", 8), "")
	f.Add("Include sshd_config.d/a.conf sshd_config.d/a.conf\n", strings.Repeat("Include ../ssh/sshd_config.d/[a-z].conf\n", 3))
	f.Add("banner=\"/etc/x y\"\n", "\"Banner\" none\n")
	f.Add("Include [\nInclude \\\n", "Banner\n")
	f.Fuzz(func(t *testing.T, main, included string) {
		tg, _ := targettest.New(t)
		targettest.Put(t, tg, target.SSHDConfig, main, 0o600)
		targettest.Put(t, tg, target.SSHDDropInDir+"/a.conf", included, 0o600)
		value, err := tg.SSHDBanner()
		if err != nil || value == "" {
			return
		}
		for line := range strings.Lines(main + "\n" + included) {
			if keyword, args := target.SSHDDirective(line); keyword == "banner" && args[0] == value {
				return
			}
		}
		t.Errorf("%q is the value of no Banner line", value)
	})
}
