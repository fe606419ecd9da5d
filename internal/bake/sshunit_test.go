// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// What starts sshd otherwise than baked, wherever systemd takes it from: the bake
// refuses it, and check names the file.
func TestUnitOverrides(t *testing.T) {
	const (
		etc      = target.SystemdUnitDir + "/"
		open     = "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o AuthenticationMethods=publickey\n"
		defaults = "/etc/default/ssh"
	)
	put := func(name, text string) func(*machine) { return func(m *machine) { m.put(name, text, 0o644) } }
	options := func(value string) func(*machine) { return put(defaults, "SSHD_OPTS="+value+"\n") }
	for _, test := range []struct {
		name     string
		damage   func(*machine)
		want     string // ID and path
		severity Severity
	}{
		{"drop-in", put(etc+"ssh.service.d/override.conf", open), "ssh-unit " + etc + "ssh.service.d/override.conf", Critical},
		{"drop-in of the alias", put(etc+"sshd.service.d/override.conf", open), "ssh-unit " + etc + "sshd.service.d/override.conf", Critical},
		{"local", put("/usr/local/lib/systemd/system/ssh.service.d/x.conf", open), "ssh-unit /usr/local/lib/systemd/system/ssh.service.d/x.conf", Critical},
		{"vendor's directory", put("/lib/systemd/system/ssh.service.d/x.conf", open), "ssh-unit /lib/systemd/system/ssh.service.d/x.conf", Critical},
		{"/run", put("/run/systemd/system/ssh.service.d/x.conf", open), "ssh-unit /run/systemd/system/ssh.service.d/x.conf", Critical},
		{"systemctl set-property", put("/etc/systemd/system.control/ssh.service.d/50-x.conf", open), "ssh-unit /etc/systemd/system.control/ssh.service.d/50-x.conf", Critical},
		{"systemctl set-property --runtime", put("/run/systemd/system.control/sshd.service.d/50-x.conf", open), "ssh-unit /run/systemd/system.control/sshd.service.d/50-x.conf", Critical},
		{"transient", put("/run/systemd/transient/ssh.service.d/x.conf", open), "ssh-unit /run/systemd/transient/ssh.service.d/x.conf", Critical},
		{"all services", put(etc+"service.d/x.conf", open), "ssh-unit " + etc + "service.d/x.conf", Critical},
		{"systemctl edit --full", put(etc+"ssh.service", "[Service]\nExecStart=/usr/sbin/sshd -D -f /x\n"), "ssh-unit " + etc + "ssh.service", Critical},
		{"systemctl edit --full --runtime", put("/run/systemd/system/ssh.service", "[Service]\nExecStart=/usr/sbin/sshd -D -f /x\n"), "ssh-unit /run/systemd/system/ssh.service", Critical},
		{"a file of our name", put("/etc/systemd/system.control/ssh.service.d/00-totp.conf", "[Service]\nNice=1\n"), "ssh-unit /etc/systemd/system.control/ssh.service.d/00-totp.conf", Critical},
		{"a file of our name, of the alias", put(etc+"sshd.service.d/00-totp.conf", "[Service]\nNice=1\n"), "ssh-unit " + etc + "sshd.service.d/00-totp.conf", Critical},
		{"another root", put(etc+"ssh.service.d/x.conf", "[Service]\nRootDirectory=/srv\n"), "ssh-unit " + etc + "ssh.service.d/x.conf", Critical},
		{"another PAM directory", put(etc+"sshd.service.d/x.conf", "[Service]\nBindReadOnlyPaths=/srv/pam:/etc/pam.d\n"), "ssh-unit " + etc + "sshd.service.d/x.conf", Critical},
		{"memory over our files", put(etc+"ssh.service.d/x.conf", "[Service]\nTemporaryFileSystem=/etc/ssh\n"), "ssh-unit " + etc + "ssh.service.d/x.conf", Critical},
		{"another user", put(etc+"ssh.service.d/x.conf", "[Service]\nUser=alice\n"), "ssh-unit " + etc + "ssh.service.d/x.conf", Critical},
		{"a missing environment file", put(etc+"ssh.service.d/x.conf", "[Service]\nEnvironmentFile=/none\n"), "ssh-unit ssh.service", Critical},
		{"a specifier", put(etc+"ssh.service.d/x.conf", "[Service]\nEnvironment=SSHD_OPTS=%i\n"), "ssh-unit ssh.service", Critical},

		{"SSHD_OPTS -f", options("-f /etc/other"), "ssh-options " + defaults, Degraded},
		{"SSHD_OPTS -f, joined and quoted", options(`"-4f/etc/other"`), "ssh-options " + defaults, Degraded},
		{"SSHD_OPTS of a drop-in", put(etc+"sshd.service.d/x.conf", "[Service]\nEnvironmentFile=\nEnvironment='SSHD_OPTS=-f /etc/other'\n"), "ssh-options " + etc + "sshd.service.d/x.conf", Degraded},
		{"SSHD_OPTS of another file", func(m *machine) {
			m.put(etc+"sshd.service.d/x.conf", "[Service]\nEnvironmentFile=/etc/site\n", 0o644)
			m.put("/etc/site", "SSHD_OPTS=-f /etc/other\n", 0o644)
		}, "ssh-options /etc/site", Degraded},
		{"SSHD_OPTS of the manager", func(m *machine) {
			m.put("/etc/systemd/system.conf.d/x.conf", "[Manager]\nDefaultEnvironment=\"SSHD_OPTS=-f /etc/other\"\n", 0o644)
		}, "ssh-options /etc/systemd/system.conf.d/x.conf", Degraded},
		{"AuthenticationMethods", options("-o AuthenticationMethods=publickey"), "ssh-options " + defaults, Degraded},
		{"AuthenticationMethods, quoted", options(`'-o "AuthenticationMethods publickey"'`), "ssh-options " + defaults, Degraded},
		{"UsePAM, joined", options("-oUsePAM=no"), "ssh-options " + defaults, Degraded},
		{"PAMServiceName", options("-o PAMServiceName=other"), "ssh-options " + defaults, Degraded},
		{"Include", options("-o Include=/x"), "ssh-options " + defaults, Critical},
		{"Match", options("-o Match=all"), "ssh-options " + defaults, Critical},
		{"Match, quoted", options(`-o "Match User alice"`), "ssh-options " + defaults, Critical},
		{"end of options", options("--"), "ssh-options " + defaults, Critical},
		{"a word", options("-4 no"), "ssh-options " + defaults, Critical},
		{"no value", options("-p"), "ssh-options " + defaults, Critical},
		{"test mode", options("-t"), "ssh-options " + defaults, Critical},
		{"extended test mode", options("-4T"), "ssh-options " + defaults, Critical},
		{"debug mode", options("-ddd"), "ssh-options " + defaults, Critical},
		{"inetd mode", options("-i"), "ssh-options " + defaults, Critical},

		{"no harm", func(m *machine) {
			options(`"-4 -p 2222 -q -E /var/log/sshd -o MaxSessions=3 -o 'AcceptEnv A B' -oUsePAM=yes -u0"`)(m)
			m.put(etc+"sshd.service.d/x.conf", "[Unit]\nAfter=x.service\n[Service]\nLimitNOFILE=9\nUser=root\nExecStartPre=/bin/mkdir -p /x\nRestart=always\n", 0o644)
			m.put(etc+"sshd@.service.d/x.conf", open, 0o644)
		}, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.put(etc+"x", "", 0o644)
			m.must(m.Symlink(unit, etc+"sshd.service"))
			m.bake()
			test.damage(m)
			findings, err := Check(t.Context(), m.Target)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Run(t.Context(), m.Target, m.options())
			if test.want == "" {
				if len(findings) > 0 || err != nil {
					t.Errorf("%q, %v", ids(findings), err)
				}
				return
			}
			overridden := slices.ContainsFunc(findings, func(f Finding) bool { return strings.Contains(f.What, "the policy decides about") })
			if refused := errors.Is(err, ErrUnit); refused == overridden {
				t.Errorf("the bake: %v", err)
			}
			if !slices.ContainsFunc(findings, func(f Finding) bool { return f.ID+" "+f.Path == test.want && f.Severity == test.severity }) {
				t.Errorf("%+v, want %s, %s", findings, test.want, test.severity)
			}
		})
	}
}

// sshd is asked with the arguments that its unit gives it, and with nothing that
// would have it do something.
func TestConfigArgs(t *testing.T) {
	m := newMachine(t)
	m.bake()
	m.put("/etc/default/ssh", `SSHD_OPTS="-4 -eE /var/log/x -p 2222 -o 'AcceptEnv A B'"`+"\n", 0o644)
	s, err := StartOf(m.Target)
	if err != nil {
		t.Fatal(err)
	}
	f := &facts{openSSH: v(9, 2), policy: new(policy.Policy).WithDefaults()}
	var want []string
	for _, o := range f.unitOptions() {
		want = append(want, "-o", o)
	}
	want = append(want, "-4", "-p", "2222", "-o", "AcceptEnv A B", "-f", target.SSHDMain)
	if got := s.ConfigArgs(); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if !slices.Equal(s.Options, []string{"-4", "-eE", "/var/log/x", "-p", "2222", "-o", "AcceptEnv A B"}) || s.OptionsFile != "/etc/default/ssh" {
		t.Errorf("%q of %q", s.Options, s.OptionsFile)
	}
	before := len(m.Calls())
	if _, err := Check(t.Context(), m.Target); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, call := range m.Calls()[before:] {
		if strings.HasPrefix(call, target.SSHD+" -t") || strings.HasPrefix(call, target.SSHD+" -T") {
			if asked++; !strings.HasSuffix(call, " "+strings.Join(want, " ")) {
				t.Errorf("asked %q", call)
			}
		}
	}
	if asked < 3 {
		t.Errorf("sshd was asked %d times", asked)
	}
}

// What systemd has loaded is compared with the files.
func TestCompareWithSystemd(t *testing.T) {
	const drop = "/etc/systemd/system/ssh.service.d/00-totp.conf"
	m := newMachine(t)
	m.bake()
	s, err := StartOf(m.Target)
	if err != nil {
		t.Fatal(err)
	}
	m.put("/proc/7/cmdline", "sshd: /usr/sbin/sshd -D -f "+target.SSHDMain+" [listener] 0 of 10-60 startups", 0o444)
	m.put("/proc/8/cmdline", "sshd: /usr/sbin/sshd -D [listener] 0 of 10-60 startups", 0o444)
	command := "ExecStart={ path=/usr/sbin/sshd ; argv[]=" + s.Command + " ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }\n"
	good := "Id=ssh.service\nFragmentPath=/lib/systemd/system/ssh.service\nDropInPaths=" + drop + "\n" + command + "NeedDaemonReload=no\nMainPID=7\n"
	for _, test := range []struct{ name, shown, want string }{
		{"as the files", good, ""},
		{"not running", strings.Replace(good, "MainPID=7", "MainPID=0", 1), ""},
		{"started before the bake", strings.Replace(good, "MainPID=7", "MainPID=8", 1), "warning ssh-restart ssh.service"},
		{"not reloaded", strings.Replace(good, "Reload=no", "Reload=yes", 1), "degraded ssh-systemd ssh.service"},
		{"another command", strings.Replace(good, " -f "+target.SSHDMain, "", 1), "critical ssh-systemd ssh.service"},
		{"a file that is gone", strings.Replace(good, drop, drop+" /run/x.conf", 1), "critical ssh-systemd /run/x.conf"},
		{"another unit file", strings.Replace(good, "/lib/systemd/system", "/opt", 1), "critical ssh-systemd /opt/ssh.service"},
		{"a file that is not loaded", strings.Replace(good, drop, "", 1), "degraded ssh-systemd " + drop},
	} {
		c := &checker{t: m.Target}
		c.compare(s, shownProperties(test.shown))
		var got []string
		for _, f := range c.findings {
			got = append(got, string(f.Severity)+" "+f.ID+" "+f.Path)
		}
		if strings.Join(got, "; ") != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}
