// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import "strings"

// sudoFailures are what sudo says when it does not make the user root, and the remedy.
// Each says is in lower case; the first row with one that fits counts.
var sudoFailures = []struct {
	says   []string
	advice string
}{
	{[]string{"must have a tty"}, `add "Defaults:USER !requiretty" to sudoers, or set ssh_pty = true in the builder's block`},
	{[]string{"no new privileges", "no_new_privs"}, "allow the guest to gain privileges (containers: no-new-privileges, allowPrivilegeEscalation), or connect as root"},
	{[]string{"nosuid", "effective uid is not 0", "setuid bit"}, "make sudo setuid root, on a file system that is mounted without nosuid, or connect as root"},
	{[]string{"syntax error", "parse error", "world writable", "no valid sudoers", "group writable", "is owned by uid", "is owned by gid"}, "correct the sudoers files: visudo -c lists their errors"},
	{[]string{"expired", "account validation failure", "account is locked"}, "renew the account in the guest (chage -E -1 -M -1 USER), or connect as another user"},
	{[]string{"not in the sudoers", "not allowed to", "may not run sudo", "is not allowed"}, "add the line \"USER ALL=(ALL) NOPASSWD: ALL\" to sudoers, or connect as root"},
	{[]string{"password is required", "terminal is required", "no tty present", "password:"}, "add the line \"USER ALL=(ALL) NOPASSWD: ALL\" to sudoers, or pass the password by execute_command"},
}

const sudoUnknown = "connect as root, or set execute_command"

// sudoAdvice returns the remedy for a failure of sudo; "" if the text is not one.
func sudoAdvice(text string) string {
	text = strings.ToLower(text)
	for _, f := range sudoFailures {
		for _, s := range f.says {
			if strings.Contains(text, s) {
				return f.advice
			}
		}
	}
	return ""
}

// The longest quotation of sudo, in lines and in bytes of each.
const (
	maxSays     = 3
	maxSaysLine = 200
)

// sudoSays makes one line of what sudo said, ready to be shown.
func sudoSays(lines []string) string {
	var out []string
	for _, line := range lines {
		if line = clean(line); line == "" {
			continue
		}
		if len(line) > maxSaysLine {
			line = strings.ToValidUTF8(line[:maxSaysLine], "") + "..."
		}
		if out = append(out, line); len(out) == maxSays {
			break
		}
	}
	return strings.Join(out, "; ")
}
