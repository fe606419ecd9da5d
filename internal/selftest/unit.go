// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"slices"
	"strings"
)

// startOptions are the options that a unit gives to sshd: what ExecStart of its
// drop-in says after the program, without -D and -e, which the self-test gives
// itself, and with its variables replaced.
func startOptions(unit string, env map[string]string) []string {
	start := ""
	for line := range strings.Lines(unit) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart="); ok {
			start = strings.TrimSpace(value)
		}
	}
	words := strings.Fields(start)
	if len(words) == 0 {
		return nil
	}
	var options []string
	for _, w := range words[1:] {
		if name, ok := strings.CutPrefix(w, "$"); ok { // systemd splits such a value into words
			options = append(options, strings.Fields(env[strings.Trim(name, "{}")])...)
			continue
		}
		options = append(options, w)
	}
	return slices.DeleteFunc(options, func(o string) bool { return o == "-D" || o == "-e" })
}

// environment reads files such as /etc/default/ssh, as EnvironmentFile= of
// systemd.exec(5) does with plain ones.
func environment(text string, into map[string]string) {
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(name, "#") {
			into[name] = strings.Trim(value, `"'`)
		}
	}
}
