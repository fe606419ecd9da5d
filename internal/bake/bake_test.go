// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

func TestRun(t *testing.T) {
	m := newMachine(t)
	m.put("/etc/systemd/system/sockets.target.wants/x", "", 0o644)
	for _, dir := range []string{"ssh.service.requires", "sockets.target.wants"} { // as Ubuntu 24.04 has it
		m.must(m.Mkdir("/etc/systemd/system/"+dir, 0o755))
		m.must(m.Symlink("/lib/systemd/system/ssh.socket", "/etc/systemd/system/"+dir+"/ssh.socket"))
	}
	var log strings.Builder
	o := m.options()
	o.Log = &log
	report, err := Run(t.Context(), m.Target, o)
	if err != nil {
		t.Fatal(err)
	}

	// The PAM file is the distribution's except for the lines that authenticate.
	before, after := stock(t, "pam.d-sshd"), m.read(target.PAMService)
	if want := strings.Replace(before, "@include common-auth\n", testBlock(t).text, 1); after != want || m.read(target.PAMCopy) != want {
		t.Errorf("the PAM file is\n%s\nits copy\n%s", after, m.read(target.PAMCopy))
	}

	for name, mode := range map[string]os.FileMode{
		target.AgentPath:     0o755,
		target.ImagePolicy:   0o600,
		target.SSHDDropIn:    0o600,
		target.PAMService:    0o644,
		target.PAMCopy:       0o644,
		target.StateDir:      0o700 | os.ModeDir,
		target.PAMStateDir:   0o700 | os.ModeDir,
		target.Report:        0o600,
		sshUnitTemplate:      0o644,
		target.SSHDDropInDir: 0o755 | os.ModeDir,
	} {
		if fi, err := m.Lstat(name); err != nil || fi.Mode() != mode {
			t.Errorf("%s: %v, %v; want %v", name, fi, err, mode)
		}
	}
	text, err := o.Policy.Marshal()
	m.must(err)
	if got := m.read(target.ImagePolicy); got != string(text) {
		t.Errorf("the policy is %q", got)
	}
	if got := m.read(target.AgentPath); got != elfAMD64 {
		t.Errorf("the agent is %q", got)
	}
	for _, l := range []link{
		{"/etc/systemd/system/ssh.service.wants/totp-agent.service", "/etc/systemd/system/totp-agent.service"},
		{"/etc/systemd/system/timers.target.wants/totp-deliver.timer", "/etc/systemd/system/totp-deliver.timer"},
		{"/etc/systemd/system/multi-user.target.wants/totp-logins.path", "/etc/systemd/system/totp-logins.path"},
		{"/etc/systemd/system/multi-user.target.wants/ssh.service", "/lib/systemd/system/ssh.service"},
		{"/etc/systemd/system/ssh.socket", "/dev/null"},
	} {
		if dest, err := m.Readlink(l.path); err != nil || dest != l.dest {
			t.Errorf("%s leads to %q, %v", l.path, dest, err)
		}
	}

	// What a masked socket would keep from starting is not there, nor is an empty
	// directory of it; other links of that kind are.
	for name, want := range map[string]bool{"ssh.service.requires": false, "sockets.target.wants/x": true, "sockets.target.wants/ssh.socket": false} {
		if _, err := m.Lstat("/etc/systemd/system/" + name); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Neither apt nor systemctl was needed; sshd was asked about everybody.
	calls := strings.Join(m.Calls(), "\n")
	for _, no := range []string{"apt-get", "systemctl", "ssh-keygen", "restart", "reload"} {
		if strings.Contains(calls, no) {
			t.Errorf("%s was run:\n%s", no, calls)
		}
	}
	for _, user := range []string{"root", "alice", nobody} {
		if !strings.Contains(calls, target.SSHD+" -T -C user="+user+",") {
			t.Errorf("sshd was not asked about %s", user)
		}
	}
	if strings.Contains(calls, "daemon") {
		t.Error("sshd was asked about an account without a shell")
	}

	// The report is what is on the disk.
	var onDisk Report
	m.must(json.Unmarshal([]byte(m.read(target.Report)), &onDisk))
	if report.OpenSSH != "9.2" || onDisk.OpenSSH != "9.2" || onDisk.System.Arch != "amd64" || onDisk.Packages["openssh-server"] == "" ||
		onDisk.SSHD["alice"]["authenticationmethods"] != "publickey,keyboard-interactive" || !strings.Contains(onDisk.Policy, "Example Hosting") {
		t.Errorf("report: %s", m.read(target.Report))
	}
	for _, f := range onDisk.Files {
		if sum, err := hashFile(m.Target, f.Path); err != nil || sum != f.SHA256 {
			t.Errorf("report: %s: %s, %v", f.Path, f.SHA256, err)
		}
	}

	for _, step := range []string{"system", "packages", "sshd version", "directories", "agent", "policy", "pam", "sshd", "units", "verify", "report"} {
		if !strings.Contains(log.String(), "bake: "+step+": ") {
			t.Errorf("the log lacks %q:\n%s", step, log.String())
		}
	}
}

func TestRunTwiceChangesNothing(t *testing.T) {
	m := newMachine(t)
	m.bake()
	m.put(target.PAMStateDir+"/alice", "SECRET", 0o400)
	before := snapshot(t, m.Root(), true)
	m.bake()
	if d := before.diff(snapshot(t, m.Root(), true)); d != nil {
		t.Errorf("changed:\n%s", strings.Join(d, "\n"))
	}
}

// Another policy changes the policy and the report, and nothing else.
func TestRunWithAnotherPolicy(t *testing.T) {
	m := newMachine(t)
	m.bake()
	before := snapshot(t, m.Root(), false)
	o := m.options()
	o.Policy = &policy.Policy{Version: 1, Issuer: "Other"}
	if _, err := Run(t.Context(), m.Target, o); err != nil {
		t.Fatal(err)
	}
	var changed []string
	for _, d := range before.diff(snapshot(t, m.Root(), false)) {
		name, _, _ := strings.Cut(d, ":")
		changed = append(changed, name)
	}
	if want := []string{target.ImagePolicy, target.Report}; !slices.Equal(changed, want) {
		t.Errorf("changed: %v, want %v", changed, want)
	}
	if got := m.read(target.ImagePolicy); !strings.Contains(got, "issuer: Other") {
		t.Errorf("the policy is %q", got)
	}
}

// A bake that fails, wherever it does, leaves every file as it was.
func TestRunRestores(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(*machine)
		err    error
	}{
		{"sshd refuses", func(m *machine) {
			m.fail[target.SSHD+" -t"] = targettest.Answer{Stderr: "Bad configuration option: x", Err: errCommand}
		}, ErrSSHDRefuses},
		{"sshd cannot be asked", func(m *machine) {
			m.fail[target.SSHD+" -T"] = targettest.Answer{Err: errCommand}
		}, ErrSSHDRefuses},
		{"a Match block wins", func(m *machine) { m.effective["AuthenticationMethods"] = "any" }, ErrEffective},
		{"no PAM", func(m *machine) { m.effective["UsePAM"] = "no" }, ErrEffective},
		{"a directory where the report is to be", func(m *machine) { m.put(target.Report+"/x", "", 0o600) }, target.ErrNotRegular},
		{"a file where a link is to be", func(m *machine) { m.put("/etc/systemd/system/ssh.socket", "[Socket]\n", 0o644) }, ErrUnit},
		{"a linked state directory", func(m *machine) {
			m.must(m.Mkdir("/srv", 0o755))
			m.must(m.Mkdir("/var/lib", 0o755))
			m.must(m.Symlink("/srv", target.PAMStateDir))
		}, target.ErrNotOurs},
		{"an agent that is a link", func(m *machine) {
			m.must(m.Mkdir("/usr/local/sbin", 0o755))
			m.must(m.Symlink("/bin/sh", target.AgentPath))
		}, target.ErrNotRegular},
	} {
		for _, old := range []bool{false, true} {
			m := newMachine(t)
			if old { // an older bake's files are there
				m.put(target.AgentPath, elfAMD64+" of old", 0o700)
				m.put(target.SSHDDropIn, "# old\n", 0o640)
				m.put(target.ImagePolicy, "version: 1\n", 0o600)
				m.put(sshUnitTemplate, "# old\n", 0o600)
				m.must(os.Chmod(filepath.Join(m.Root(), target.SSHDDropInDir), 0o700))
				m.put("/etc/systemd/system/ssh.service.requires/x", "", 0o644)
				m.must(m.Mkdir("/etc/systemd/system/sockets.target.wants", 0o700))
				for _, dir := range []string{"ssh.service.requires", "sockets.target.wants"} {
					m.must(m.Symlink("/lib/systemd/system/ssh.socket", "/etc/systemd/system/"+dir+"/ssh.socket"))
				}
				if test.name != "a file where a link is to be" {
					m.must(m.Symlink("/lib/systemd/system/ssh.socket", "/etc/systemd/system/ssh.socket"))
				}
				if test.name == "an agent that is a link" {
					m.must(m.Remove(target.AgentPath))
					m.must(m.Remove("/usr/local/sbin"))
				}
			}
			test.damage(m)
			before := snapshot(t, m.Root(), false)
			if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, test.err) {
				t.Errorf("%s: %v, want %v", test.name, err, test.err)
			}
			if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
				t.Errorf("%s: not restored:\n%s", test.name, strings.Join(d, "\n"))
			}
		}
	}
}

// The packages that a bake installed before it failed stay, and are named: those
// alone that were not there.
func TestPackagesStay(t *testing.T) {
	const gone, removed, there = "", " 1-1 config-files\n", " 1-1 installed\n"
	for _, test := range []struct {
		name          string
		before, after [2]string // the module's package, and the NTP client's
		fail          string    // the command that does
		err           error
		stay          string
	}{
		{"after the installation", [2]string{removed, gone}, [2]string{there, there}, target.SSHD + " -t", ErrSSHDRefuses, "libpam-google-authenticator, systemd-timesyncd: "},
		{"one was there", [2]string{gone, there}, [2]string{there, there}, target.SSHD + " -t", ErrSSHDRefuses, "libpam-google-authenticator: "},
		{"in the middle of it", [2]string{gone, gone}, [2]string{" 1-1 half-configured\n", gone}, target.AptGet, errCommand, "libpam-google-authenticator: "},
		{"before it", [2]string{gone, removed}, [2]string{gone, removed}, target.AptGet, errCommand, ""},
	} {
		m := newMachine(t)
		m.must(m.Remove(module))
		m.must(m.Remove("/lib/systemd/system/systemd-timesyncd.service"))
		now := test.before
		handle := m.Handle
		m.Handle = func(argv []string) targettest.Answer {
			line := strings.Join(argv, " ")
			switch {
			case argv[0] == target.DpkgQuery:
				var a targettest.Answer
				for i, name := range []string{"libpam-google-authenticator", "systemd-timesyncd"} {
					if now[i] != gone && slices.Contains(argv, name) {
						a.Stdout += name + now[i]
					}
				}
				return a
			case argv[0] == target.AptGet && slices.Contains(argv, "install"):
				now = test.after
				m.put(module, elfAMD64, 0o644)
			}
			if strings.HasPrefix(line, test.fail) && !slices.Contains(argv, "update") {
				return targettest.Answer{Err: errCommand}
			}
			return handle(argv)
		}
		_, err := Run(t.Context(), m.Target, m.options())
		if !errors.Is(err, test.err) || errors.Is(err, ErrPackagesStay) != (test.stay != "") {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		said := ""
		for line := range strings.Lines(err.Error()) {
			if strings.Contains(line, ErrPackagesStay.Error()) {
				said = line
			}
		}
		if test.stay != "" && !strings.HasPrefix(said, test.stay) {
			t.Errorf("%s: %q, want %q", test.name, said, test.stay)
		}
	}
	// A bake that installs nothing says nothing of packages.
	m := newMachine(t)
	m.fail[target.SSHD+" -t"] = targettest.Answer{Err: errCommand}
	if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, ErrSSHDRefuses) || errors.Is(err, ErrPackagesStay) {
		t.Errorf("nothing was installed: %v", err)
	}
}

func TestRunInterrupted(t *testing.T) {
	m := newMachine(t)
	ctx, cancel := context.WithCancel(t.Context())
	handle := m.Handle
	m.Handle = func(argv []string) targettest.Answer {
		if argv[0] == target.SSHD && argv[1] == "-t" {
			cancel()
		}
		return handle(argv)
	}
	before := snapshot(t, m.Root(), false)
	if _, err := Run(ctx, m.Target, m.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
		t.Errorf("not restored:\n%s", strings.Join(d, "\n"))
	}
}

func TestRunRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		damage func(*machine)
		err    error
		where  string // what the error names
	}{
		{"another distribution", func(m *machine) { m.put(target.OSRelease, "ID=ubuntu\nVERSION_ID=\"20.04\"\n", 0o644) }, ErrSystem, "20.04"},
		{"a distribution nobody knows", func(m *machine) { m.put(target.OSRelease, "ID=alpine\nVERSION_ID=3.22.0\n", 0o644) }, ErrSystem, "Ubuntu 22.04 and newer"},
		{"another release", func(m *machine) { m.edit(target.OSRelease, "\"12\"", "\"10\"") }, ErrSystem, "Debian 12"},
		{"no os-release", func(m *machine) { m.must(m.Remove(target.OSRelease)) }, ErrSystem, target.OSRelease},
		{"a 32-bit system", func(m *machine) { m.put(target.Shell, "\x7fELF\x01\x01", 0o755) }, ErrSystem, target.Shell},
		{"another architecture", func(m *machine) { m.put(target.Shell, elfARM64, 0o755) }, ErrAgent, "arm64"},
		{"two factors already", func(m *machine) {
			m.edit(target.PAMService, "@include common-auth", "@include common-auth\nauth required pam_google_authenticator.so nullok")
		}, ErrPAM, target.PAMService + ":5"},
		{"another way in", func(m *machine) {
			m.edit(target.PAMService, "@include common-auth", "auth sufficient pam_u2f.so\n@include common-auth")
		}, ErrPAM, target.PAMService + ":4"},
		{"faillock in another file", func(m *machine) {
			m.put("/etc/pam.d/common-account", "auth [default=die] pam_faillock.so authfail\n", 0o644)
		}, ErrPAM, "/etc/pam.d/common-account:1"},
		{"common-auth replaced by hand", func(m *machine) {
			m.edit(target.PAMService, "@include common-auth", "auth required pam_unix.so")
		}, ErrPAM, target.PAMService + ":4"},
		{"no password line", func(m *machine) { m.edit(target.PAMService, "@include common-auth", "") }, ErrPAM, target.PAMService},
		{"an include that authenticates", func(m *machine) {
			m.put("/etc/pam.d/common-account", "# local\nauth sufficient pam_permit.so\n", 0o644)
		}, ErrPAM, "/etc/pam.d/common-account:2"},
		{"a PAM file that others write", func(m *machine) { m.must(m.Chmod(target.PAMService, 0o666)) }, ErrWritable, target.PAMService},
		{"sshd_config that others write", func(m *machine) { m.must(m.Chmod(target.SSHDConfig, 0o666)) }, ErrWritable, target.SSHDConfig},
		{"sshd started otherwise", func(m *machine) { m.edit(unit, "sshd -D $SSHD_OPTS", "sshd -D -f /etc/my_sshd_config") }, ErrUnit, unit},
		{"a drop-in that starts sshd", func(m *machine) {
			m.put("/etc/systemd/system/ssh.service.d/zz.conf", "[Service]\nExecStart=\nExecStart=/usr/sbin/sshd -D -o UsePAM=no\n", 0o644)
		}, ErrUnit, "zz.conf"},
		{"sshd masked", func(m *machine) {
			m.must(m.Mkdir("/etc/systemd/system", 0o755))
			m.must(m.Symlink("/dev/null", "/etc/systemd/system/ssh.service"))
		}, ErrUnit, "ssh.service"},
		{"no systemd unit", func(m *machine) { m.must(m.Remove(unit)) }, ErrUnit, "ssh.service"},
		{"a sshd of another kind", func(m *machine) { m.fail[target.SSHD+" -V"] = targettest.Answer{Stderr: "Dropbear"} }, target.ErrNoOpenSSH, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			test.damage(m)
			before := snapshot(t, m.Root(), false)
			_, err := Run(t.Context(), m.Target, m.options())
			if !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.where) {
				t.Errorf("%v, want %v with %q", err, test.err, test.where)
			}
			if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
				t.Errorf("not restored:\n%s", strings.Join(d, "\n"))
			}
		})
	}
}

// A PAM file that somebody has customised in a way that is understood is baked:
// our line is there once, and check is content.
func TestRunUnderstandsPAM(t *testing.T) {
	const common = "@include common-auth"
	for name, text := range map[string]string{
		"a guide's":                 "#" + common + "\nauth required pam_google_authenticator.so nullok",
		"a guide's, with requisite": "auth requisite pam_google_authenticator.so secret=/x/${USER}",
		"faillock before it":        "auth required pam_faillock.so preauth deny=5\n" + common,
		"a guide's faillock":        "auth required pam_faillock.so preauth\nauth [success=1 default=bad] pam_google_authenticator.so\nauth [default=die] pam_faillock.so authfail\nauth sufficient pam_faillock.so authsucc",
		"a guide's, for a password": "auth required pam_faillock.so preauth\n" + common + "\nauth [default=die] pam_faillock.so authfail",
		"the first release's":       oldLine,
		"env":                       "auth required pam_env.so\n" + common,
		"nologin and faildelay":     "auth requisite pam_nologin.so\n" + common + "\nauth required pam_faildelay.so delay=1000000",
	} {
		m := newMachine(t)
		m.edit(target.PAMService, common, text)
		m.bake()
		if got := m.read(target.PAMService); strings.Count(got, target.PAMModule) != 1 || !strings.Contains(got, testBlock(t).text) {
			t.Errorf("%s: %s", name, got)
		}
		if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
			t.Errorf("%s: %q, %v", name, ids(findings), err)
		}
		before := snapshot(t, m.Root(), true)
		m.bake()
		if d := before.diff(snapshot(t, m.Root(), true)); d != nil {
			t.Errorf("%s, again:\n%s", name, strings.Join(d, "\n"))
		}
	}
}

// Whatever stands in sshd_config, and whatever sorts before our file, sshd reads
// ours first; the rest of the file stays as it is.
func TestRunIncludes(t *testing.T) {
	for name, damage := range map[string]func(m *machine){
		"stock":      func(*machine) {},
		"no Include": func(m *machine) { m.edit(target.SSHDConfig, "Include ", "#Include ") },
		"a Match block first": func(m *machine) {
			m.edit(target.SSHDConfig, "Include ", "Match User bob\n  X11Forwarding no\nInclude ")
		},
		"a keyword first": func(m *machine) { m.edit(target.SSHDConfig, "Include ", "PasswordAuthentication yes\nInclude ") },
		"a drop-in first": func(m *machine) { m.put("/etc/ssh/sshd_config.d/00-00-a.conf", "", 0o644) },
		"another mode":    func(m *machine) { m.must(m.Chmod(target.SSHDConfig, 0o600)) },
		"empty":           func(m *machine) { m.put(target.SSHDConfig, "", 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			damage(m)
			before := m.read(target.SSHDConfig)
			mode, _ := m.Stat(target.SSHDConfig)
			m.bake()
			got := m.read(target.SSHDConfig)
			if !strings.HasPrefix(got, topComment+"\n"+topInclude+"\n") || strings.TrimPrefix(got, topComment+"\n"+topInclude+"\n\n") != strings.TrimLeft(before, "\n") {
				t.Errorf("got %.300q", got)
			}
			if fi, _ := m.Stat(target.SSHDConfig); fi.Mode() != mode.Mode() {
				t.Errorf("mode %v, want %v", fi.Mode(), mode.Mode())
			}
			m.bake()
			if again := m.read(target.SSHDConfig); again != got {
				t.Errorf("the second bake made %.300q", again)
			}
			if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
				t.Errorf("%q, %v", ids(findings), err)
			}
			// Somebody's line above ours is moved below it, and ours is there once.
			m.put(target.SSHDConfig, "Port 2222\n"+got, mode.Mode().Perm())
			m.bake()
			if again := m.read(target.SSHDConfig); !strings.HasPrefix(again, topComment+"\n"+topInclude+"\n\nPort 2222\n") || strings.Count(again, topInclude) != 1 {
				t.Errorf("below a line of somebody's: %.300q", again)
			}
		})
	}
}

func TestRunOneAtATime(t *testing.T) {
	m := newMachine(t)
	m.must(m.Mkdir(target.StateDir, 0o700))
	unlock, err := m.Lock(target.StateDir)
	m.must(err)
	defer unlock()
	if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, target.ErrLocked) {
		t.Errorf("got %v", err)
	}
}

func TestPackages(t *testing.T) {
	t.Run("missing, installed", func(t *testing.T) {
		m := newMachine(t)
		m.must(m.Remove(module))
		m.apt = func(argv []string) {
			if slices.Contains(argv, "install") {
				m.put(module, elfAMD64, 0o644)
			}
		}
		m.bake()
		var apt []string
		for _, c := range m.Calls() {
			if strings.HasPrefix(c, target.AptGet) {
				apt = append(apt, c)
			}
		}
		if len(apt) != 2 || !strings.HasSuffix(apt[0], " update") || !strings.HasSuffix(apt[1], " libpam-google-authenticator") ||
			!strings.Contains(apt[1], "--no-install-recommends") || !strings.Contains(apt[1], "DPkg::Lock::Timeout=") {
			t.Errorf("ran %q", apt)
		}
	})
	t.Run("missing, not to be installed", func(t *testing.T) {
		m := newMachine(t)
		m.must(m.Remove(module))
		o := m.options()
		o.Policy.Packages = policy.PackagesPresent
		if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrPackage) {
			t.Errorf("got %v", err)
		}
		if calls := strings.Join(m.Calls(), "\n"); strings.Contains(calls, "apt") {
			t.Errorf("ran %s", calls)
		}
	})
	t.Run("installed, but not there", func(t *testing.T) {
		m := newMachine(t)
		m.must(m.Remove(module))
		if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, ErrPackage) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("apt fails", func(t *testing.T) {
		m := newMachine(t)
		m.must(m.Remove(module))
		m.fail[target.AptGet] = targettest.Answer{Stderr: "E: Unable to locate package libpam-google-authenticator", Err: errCommand}
		_, err := Run(t.Context(), m.Target, m.options())
		if ce, ok := errors.AsType[*target.CommandError](err); !ok || !strings.Contains(ce.Stderr, "Unable to locate") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("apt has no network", func(t *testing.T) {
		m := newMachine(t)
		m.must(m.Remove(module))
		handle := m.Handle
		m.Handle = func(argv []string) targettest.Answer {
			switch {
			case argv[0] == target.AptGet && slices.Contains(argv, "update"): // apt-get succeeds
				return targettest.Answer{Stdout: "Ign:1 http://deb.example trixie InRelease\n",
					Stderr: "W: Failed to fetch http://deb.example/InRelease  Temporary failure resolving 'deb.example'\nW: Some index files failed to download. They have been ignored, or old ones used instead.\n"}
			case argv[0] == target.AptGet:
				return targettest.Answer{Stderr: "E: Unable to locate package libpam-google-authenticator\n", Err: errCommand}
			}
			return handle(argv)
		}
		_, err := Run(t.Context(), m.Target, m.options())
		ce, ok := errors.AsType[*target.CommandError](err)
		if !ok || !strings.Contains(ce.Stderr, "Unable to locate") || !strings.Contains(err.Error(), "Temporary failure resolving 'deb.example'") || strings.Contains(err.Error(), "Ign:") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("apt is locked for longer than there is patience", func(t *testing.T) {
		oldPatience, oldPause := aptPatience, aptPause
		aptPatience, aptPause = 0, 0
		defer func() { aptPatience, aptPause = oldPatience, oldPause }()
		m := newMachine(t)
		m.must(m.Remove(module))
		m.fail[target.AptGet] = targettest.Answer{Stderr: "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7", Err: errCommand}
		_, err := Run(t.Context(), m.Target, m.options())
		if ce, ok := errors.AsType[*target.CommandError](err); !ok || !strings.Contains(ce.Stderr, "held by process 7") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("apt is locked for a while", func(t *testing.T) {
		old := aptPause
		aptPause = 1
		defer func() { aptPause = old }()
		m := newMachine(t)
		m.must(m.Remove(module))
		tries := 0
		handle := m.Handle
		m.Handle = func(argv []string) targettest.Answer {
			if argv[0] == target.AptGet && slices.Contains(argv, "update") {
				if tries++; tries < 3 {
					return targettest.Answer{Stderr: "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7", Err: errCommand}
				}
			}
			return handle(argv)
		}
		m.apt = func([]string) { m.put(module, elfAMD64, 0o644) }
		m.bake()
		if tries != 3 {
			t.Errorf("%d tries", tries)
		}
	})
}
