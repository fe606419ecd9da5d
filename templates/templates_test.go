// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package templates_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/templates"
)

var update = flag.Bool("update", false, "write the golden files anew")

var agent = templates.Agent{
	Program:     "/usr/local/sbin/totp-agent",
	PAMStateDir: "/var/lib/google-authenticator",
	StateDir:    "/var/lib/totp-agent",
	RunDir:      "totp-agent",
	Tally:       "/run/faillock-sshd",
	PAMDirs:     []string{"/etc/pam.d", "/usr/lib/pam.d", "/usr/lib/x86_64-linux-gnu/security"},
	CleanMark:   "/var/lib/totp-agent/clean.json",
	Module:      "/usr/lib/python3/dist-packages/cc_totp.py",
	SSHService:  "ssh.service",
	SSHSocket:   "ssh.socket",
}

var data = map[string]templates.Data{
	"etc/pam.d/sshd":            templates.PAMBlock{Module: "pam_google_authenticator.so", StateDir: "/var/lib/google-authenticator", Tally: "/run/faillock-sshd", Tries: 3, Seconds: 30, Options: "nodelay"},
	"usr/lib/pam.d/sshd.debian": templates.PAMService{Block: "auth required pam_x.so\n"},
	"usr/lib/pam.d/sshd.redhat": templates.PAMService{Block: "auth required pam_x.so\n"},
	"etc/ssh/sshd_config.d/00-00-totp.conf": templates.SSHDConfig{
		Main:       "/etc/ssh/sshd_totp.conf",
		Login:      "/etc/ssh/sshd_totp_login.conf",
		System:     "Debian 12, OpenSSH 9.2",
		Auth:       []templates.Setting{{Keyword: "UsePAM", Value: "yes"}, {Keyword: "AuthenticationMethods", Value: "publickey,keyboard-interactive", Why: "Both."}},
		Session:    []templates.Setting{{Keyword: "X11Forwarding", Value: "no"}},
		Algorithms: []templates.Setting{{Keyword: "Ciphers", Value: "aes256-ctr"}},
		Exempt:     []string{"Group deploy User *,!root", "User ansible"},
		MatchAll:   []templates.Setting{{Keyword: "KbdInteractiveAuthentication", Value: "yes"}, {Keyword: "AuthenticationMethods", Value: "publickey,keyboard-interactive"}},
		Notice:     "/run/totp-agent/sshd-closed.conf /run/totp-agent/sshd-notice.conf",
	},
	"etc/ssh/sshd_totp.conf":                         templates.SSHDMain{Login: "/etc/ssh/sshd_totp_login.conf", Config: "/etc/ssh/sshd_config"},
	"etc/ssh/sshd_config.d/00-01-totp-hostkeys.conf": templates.HostKeys{Keys: []string{"/etc/ssh/ssh_host_ed25519_key"}},
	"etc/tmpfiles.d/totp-agent.conf":                 agent,
	"etc/dpkg/dpkg.cfg.d/totp-agent":                 agent,
	"etc/systemd/system-preset/00-totp.preset":       agent,
	"etc/systemd/system/ssh.service.d/00-totp.conf":  templates.SSHUnit{Program: "/usr/sbin/sshd -D", Test: "/usr/sbin/sshd -t", Options: []string{"UsePAM=yes", "PasswordAuthentication=no"}, Rest: "$SSHD_OPTS -f /etc/ssh/sshd_totp.conf"},
	"etc/systemd/system/ssh@.service.d/00-totp.conf": templates.SSHUnit{Program: "-/usr/sbin/sshd -i", Options: []string{"UsePAM=yes", "PasswordAuthentication=no"}, Rest: "$SSHD_OPTS -f /etc/ssh/sshd_totp.conf"},
	"etc/systemd/system/totp-agent.service":          agent,
	"etc/systemd/system/totp-clean.service":          agent,
	"etc/systemd/system/totp-hostkeys.service":       agent,
	"etc/systemd/system/totp-deliver.service":        agent,
	"etc/systemd/system/totp-deliver.timer":          agent,
	"etc/systemd/system/totp-logins.path":            agent,
	"etc/systemd/system/totp-logins.service":         agent,
	"etc/systemd/system/totp-module.service":         agent,
	"etc/systemd/system/totp-recheck.service":        agent,
	"etc/systemd/system/totp-repair.path":            agent,
	"etc/systemd/system/totp-repair.service":         agent,
	"usr/lib/python3/dist-packages/cc_totp.py":       agent,
}

func TestGolden(t *testing.T) {
	for _, name := range templates.Names() {
		d, ok := data[name]
		if !ok {
			t.Errorf("%s: no data in this test", name)
			continue
		}
		got, err := templates.Render(name, d)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden := filepath.Join("testdata", strings.ReplaceAll(name, "/", "_")+".golden")
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s differs from %s; look at it, then run go test -update:\n%s", name, golden, got)
		}
		blank := strings.Contains(string(got), "\n\n\n") && path.Ext(name) != ".py" // pycodestyle wants two
		if !strings.HasSuffix(string(got), "\n") || blank || strings.Contains(string(got), " \n") || strings.HasSuffix(string(got), "\n\n") {
			t.Errorf("%s: blank lines or blanks at an end:\n%q", name, got)
		}
	}
	if len(data) != len(templates.Names()) {
		t.Errorf("%d templates, data for %d", len(templates.Names()), len(data))
	}
}

func TestRenderIsStrict(t *testing.T) {
	if _, err := templates.Render("etc/passwd", nil); !errors.Is(err, templates.ErrNoTemplate) {
		t.Errorf("unknown name: %v", err)
	}
	if _, err := templates.Render("etc", nil); !errors.Is(err, templates.ErrNoTemplate) {
		t.Errorf("a directory: %v", err)
	}
	for name, d := range data {
		if d == nil || name == "etc/systemd/system/totp-deliver.timer" {
			continue // asks for nothing
		}
		if _, err := templates.Render(name, nil); !errors.Is(err, templates.ErrNoValue) {
			t.Errorf("%s: rendered without its data: %v", name, err)
		}
		var other templates.Data = templates.HostKeys{}
		if name == "etc/ssh/sshd_config.d/00-01-totp-hostkeys.conf" {
			other = templates.PAMBlock{}
		}
		if _, err := templates.Render(name, other); !errors.Is(err, templates.ErrNoValue) {
			t.Errorf("%s: rendered from other data: %v", name, err)
		}
	}
}

// tool finds a program that judges the texts. Where it is missing the test is
// skipped, but not in continuous integration.
func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}

// systemd reads the units, and finds nothing to say.
func TestSystemdReadsTheUnits(t *testing.T) {
	analyze := tool(t, "systemd-analyze")
	dir := t.TempDir()
	var units []string
	for _, name := range []string{"totp-agent.service", "totp-deliver.service", "totp-deliver.timer", "totp-logins.path", "totp-logins.service", "totp-module.service"} {
		a := agent
		a.Program = "/bin/true" // verify wants a program that is there
		text, err := templates.Render("etc/systemd/system/"+name, a)
		if err != nil {
			t.Fatal(err)
		}
		// Nor is cloud-init on this machine.
		text = []byte(strings.Replace(string(text), "=/usr/bin/cloud-init single", "=/bin/true", 1))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
		units = append(units, filepath.Join(dir, name))
	}
	out, err := exec.Command(analyze, append([]string{"verify", "--man=no", "--recursive-errors=no"}, units...)...).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		for _, u := range units {
			if strings.Contains(line, path.Base(u)) {
				t.Errorf("systemd-analyze: %s", line)
			}
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
