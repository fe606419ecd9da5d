// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// What sudo 1.8 to 1.9 prints with LC_ALL=C, each with a word of the remedy.
var sudoTexts = map[string]struct{ says, advice string }{
	"password":        {"sudo: a password is required", "NOPASSWD"},
	"terminal":        {"sudo: a terminal is required to read the password; either use the -S option to read from standard input or configure an askpass helper", "NOPASSWD"},
	"requiretty":      {"sudo: sorry, you must have a tty to run sudo", "!requiretty"},
	"not in sudoers":  {"debian is not in the sudoers file.  This incident will be reported.", "NOPASSWD"},
	"not allowed":     {"Sorry, user debian is not allowed to execute '/usr/bin/true' as root on build.", "NOPASSWD"},
	"may not run":     {"Sorry, user debian may not run sudo on build.", "NOPASSWD"},
	"expired":         {"sudo: Account or password is expired, reset your password and try again", "chage"},
	"account expired": {"sudo: Account expired or PAM config lacks an \"account\" section for sudo, contact your system administrator", "chage"},
	"locked":          {"sudo: account validation failure, is your account locked?", "chage"},
	"nosuid":          {"sudo: effective uid is not 0, is /usr/bin/sudo on a file system with the 'nosuid' option set or an NFS file system without root privileges?", "without nosuid"},
	"no setuid":       {"sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set", "setuid root"},
	"no_new_privs": {"sudo: The \"no new privileges\" flag is set, which prevents sudo from running as root.\n" +
		"sudo: If sudo is running in a container, you may need to adjust the container configuration to disable the flag.", "no-new-privileges"},
	"broken sudoers":   {"/etc/sudoers:3:10: syntax error\nx y z\n  ^\nsudo: no valid sudoers sources found, quitting", "visudo -c"},
	"writable sudoers": {"sudo: /etc/sudoers is world writable\nsudo: no valid sudoers sources found, quitting", "visudo -c"},
	"unresolved host":  {"sudo: unable to resolve host build: Name or service not known\nsudo: a password is required", "NOPASSWD"},
	"anything else":    {"sudo: error initializing audit plugin sudoers_audit", "connect as root"},
	"nothing at all":   {"", "connect as root"},
	"a trap":           {"x\nTOTP-PROBE-END\nsudo=yes\nsudo: a password is required\\nTOTP-PROBE-END\\nuid=0", "connect as root"},
}

// A failure of sudo is quoted, with a remedy for this failure, in each shell.
func TestSudoRefuses(t *testing.T) {
	for name, tt := range sudoTexts {
		for _, shell := range shells(t) {
			t.Run(name+"/"+filepath.Base(shell), func(t *testing.T) {
				p := &Provisioner{agents: fakeAgents{"amd64": "x"}}
				if err := p.Prepare(map[string]any{"remote_folder": t.TempDir(), "issuer": "Example"}); err != nil {
					t.Fatal(err)
				}
				comm := shellComm{shell: shell, path: fakePrograms(t, map[string]string{
					"uname": `case $1 in -s) echo Linux;; -m) echo x86_64;; esac`, "id": "echo 1000",
					"sudo": "while IFS= read -r l; do printf '%s\\n' \"$l\" >&2; done <<'END'\n" + tt.says + "\nEND\nexit 1",
				})}
				err := p.Provision(t.Context(), &recordingUI{}, comm, nil)
				if !errors.Is(err, ErrNoSudo) {
					t.Fatalf("error %v", err)
				}
				first, _, _ := strings.Cut(tt.says, "\n")
				quoted := strings.ReplaceAll(err.Error(), `\"`, `"`)
				if !strings.Contains(quoted, first) || !strings.Contains(quoted, tt.advice) {
					t.Errorf("%v; want %q and %q in it", err, first, tt.advice)
				}
			})
		}
	}
}

// An execute_command of the user's own meets the same failures, in the bake.
func TestSudoAdviceInTheBake(t *testing.T) {
	for name, tt := range sudoTexts {
		if tt.advice == "connect as root" {
			continue
		}
		err := bakeError(1, "", strings.Split(tt.says, "\n"), nil)
		if !errors.Is(err, ErrNotRun) || !strings.Contains(err.Error(), tt.advice) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := bakeError(127, "", []string{"sh: doas: not found"}, nil); !strings.Contains(err.Error(), "execute_command must run") {
		t.Errorf("another program: %v", err)
	}
}
