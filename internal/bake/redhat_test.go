// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// A redhatMachine is a Rocky Linux 9 as far as bake looks at one. The stock files
// in testdata are typed after what the packages openssh-server, pam and authselect
// of RHEL 9 are documented to install, not taken from them, and nobody has run a
// bake on the real system.
type redhatMachine struct {
	*machine
	dnf  func(names []string) targettest.Answer // installs; nil: nothing happens
	rpms map[string]string                      // installed, with their versions
}

const (
	rocky9       = "NAME=\"Rocky Linux\"\nVERSION_ID=\"9.6\"\nID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\nPRETTY_NAME=\"Rocky Linux 9.6 (Blue Onyx)\"\n"
	redhatModule = "/usr/lib64/security/pam_google_authenticator.so"
	redhatUnit   = "/usr/lib/systemd/system/sshd.service"
	restorecon   = "/usr/sbin/restorecon"
)

func redhatStock(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "rhel9-"+name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func newRedHat(tb testing.TB) *redhatMachine {
	tb.Helper()
	t, r := targettest.New(tb)
	m := &redhatMachine{
		machine: &machine{Target: t, Recorder: r, tb: tb, openSSH: "8.7", fail: map[string]targettest.Answer{}, effective: map[string]string{}},
		rpms:    map[string]string{"google-authenticator": "1.09-5.el9", "openssh-server": "8.7p1-45.el9.rocky.0.1"},
	}
	r.Handle = m.answer
	m.algs = map[string]string{"KexAlgorithms": "curve25519-sha256\ncurve25519-sha256@libssh.org\necdh-sha2-nistp256\n" +
		"diffie-hellman-group-exchange-sha256\ndiffie-hellman-group14-sha256\ndiffie-hellman-group16-sha512\ndiffie-hellman-group18-sha512\n"}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		m.must(m.Mkdir("/usr/"+d, 0o755))
		m.must(m.Symlink("usr/"+d, "/"+d))
	}
	m.put("/run/x", "", 0o644)
	m.put(target.OSRelease, rocky9, 0o644)
	for _, program := range []string{target.Shell, target.SSHD, target.SSH, target.DNF, target.RPM, restorecon} {
		m.put(program, elfAMD64, 0o755)
	}
	m.put(redhatModule, elfAMD64, 0o755)
	m.put("/usr/lib64/security/pam_faillock.so", elfAMD64+" nodelay", 0o755)
	for _, service := range []string{"sshd", "password-auth", "postlogin"} {
		m.put("/etc/pam.d/"+service, redhatStock(tb, "pam.d-"+service), 0o644)
	}
	m.put(target.SSHDConfig, redhatStock(tb, "sshd_config"), 0o600)
	m.put(target.SSHDDropInDir+"/50-redhat.conf", redhatStock(tb, "50-redhat.conf"), 0o600)
	m.must(m.Chmod(target.SSHDDropInDir, 0o700))
	m.put(target.CryptoPolicyState, "DEFAULT\n", 0o644)
	m.put(redhatUnit, redhatStock(tb, "sshd.service"), 0o644)
	m.put("/usr/lib/systemd/system/sshd@.service", redhatStock(tb, "sshd@.service"), 0o644)
	m.put("/etc/systemd/system/multi-user.target.wants/x", "", 0o644)
	m.must(m.Symlink(redhatUnit, "/etc/systemd/system/multi-user.target.wants/sshd.service"))
	m.put("/usr/lib/systemd/system/chronyd.service", "[Install]\nWantedBy=multi-user.target\n", 0o644)
	m.must(m.Symlink("/usr/lib/systemd/system/chronyd.service", "/etc/systemd/system/multi-user.target.wants/chronyd.service"))
	m.put(target.Passwd, "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\n", 0o644)
	return m
}

func (m *redhatMachine) answer(argv []string) targettest.Answer {
	switch argv[0] {
	case target.RPM:
		var out strings.Builder
		var err error
		for _, name := range argv[4:] {
			if v, ok := m.rpms[name]; ok {
				out.WriteString(name + " " + v + "\n")
			} else {
				out.WriteString("package " + name + " is not installed\n")
				err = errCommand
			}
		}
		return targettest.Answer{Stdout: out.String(), Err: err}
	case target.DNF:
		if m.dnf == nil {
			return targettest.Answer{}
		}
		return m.dnf(argv[5:])
	}
	return m.machine.answer(argv)
}

func (m *redhatMachine) options() Options {
	o := m.machine.options()
	o.AllowUntested = true
	return o
}

func (m *redhatMachine) bake() *Report {
	m.tb.Helper()
	r, err := Run(m.tb.Context(), m.Target, m.options())
	m.must(err)
	return r
}

func golden(tb testing.TB, name, got string) {
	tb.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	if got != string(want) {
		tb.Errorf("differs from %s; look at it, then run go test -update:\n%s", name, got)
	}
}

// What a bake makes of the stock files of RHEL 9, as files to look at.
func TestRedHat(t *testing.T) {
	m := newRedHat(t)
	var log strings.Builder
	o := m.options()
	o.Log = &log
	report, err := Run(t.Context(), m.Target, o)
	m.must(err)
	for name, file := range map[string]string{
		"00-00-totp.conf-rhel-9.golden":      target.SSHDDropIn,
		"rhel9-pam.d-sshd.golden":            target.PAMService,
		"rhel9-sshd_config.golden":           target.SSHDConfig,
		"rhel9-sshd.service.d.golden":        "/etc/systemd/system/sshd.service.d/00-totp.conf",
		"rhel9-totp-agent.service.golden":    target.SystemdUnitDir + "/" + target.AgentService,
		"rhel9-00-totp.preset.golden":        target.SystemdPresetDir + "/00-totp.preset",
		"rhel9-00-01-totp-hostkeys.golden":   target.SSHDHostKeys,
		"rhel9-totp-hostkeys.service.golden": target.SystemdUnitDir + "/" + target.HostKeyService,
		"rhel9-sshd@.service.d.golden":       "/etc/systemd/system/sshd@.service.d/00-totp.conf",
	} {
		golden(t, name, m.read(file))
	}
	for name, lacks := range map[string]string{target.SSHDDropIn: "DebianBanner", target.PAMService: "password-auth\nauth"} {
		if strings.Contains(m.read(name), lacks) {
			t.Errorf("%s has %q", name, lacks)
		}
	}
	if want := strings.Replace(redhatStock(t, "pam.d-sshd"), "auth       substack     password-auth\n", testBlock(t).text, 1); m.read(target.PAMService) != want {
		t.Errorf("%s: more than one line has changed:\n%s", target.PAMService, m.read(target.PAMService))
	}
	for _, l := range []link{
		{"/etc/systemd/system/sshd.service.wants/totp-agent.service", "/etc/systemd/system/totp-agent.service"},
		{"/etc/systemd/system/sshd.service.wants/totp-hostkeys.service", "/etc/systemd/system/totp-hostkeys.service"},
		{"/etc/systemd/system/multi-user.target.wants/sshd.service", redhatUnit},
		{"/etc/systemd/system/sshd.socket", "/dev/null"},
	} {
		if dest, err := m.Readlink(l.path); err != nil || dest != l.dest {
			t.Errorf("%s leads to %q, %v", l.path, dest, err)
		}
	}
	for _, no := range []string{"/etc/systemd/system/ssh.service.d", "/etc/systemd/system/ssh.service.wants", "/etc/systemd/system/ssh.socket", target.DpkgConfigDir} {
		if m.Exists(no) {
			t.Errorf("%s is there", no)
		}
	}
	if fi, _ := m.Stat(target.SSHDConfig); fi.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v", target.SSHDConfig, fi.Mode())
	}

	if !strings.Contains(log.String(), "WARNING") || !strings.Contains(log.String(), "crypto policy DEFAULT") {
		t.Errorf("the log has no warning, or not the crypto policy:\n%s", &log)
	}
	if s := report.System; s.ID != "rocky" || s.VersionID != "9.6" || s.Name != "Rocky Linux 9.6" || s.Support != Untested {
		t.Errorf("%+v", s)
	}
	if report.Packages["google-authenticator"] != "1.09-5.el9" || report.Packages["openssh-server"] == "" || len(report.Packages) != 2 {
		t.Errorf("%v", report.Packages)
	}
	calls := m.Calls()
	i := slices.IndexFunc(calls, func(c string) bool { return strings.HasPrefix(c, "restorecon -R ") })
	for _, name := range []string{target.PAMStateDir, target.AgentPath, target.PAMService, target.SSHDDropIn} {
		if i < 0 || !slices.Contains(strings.Fields(calls[i]), name) || !slices.Contains(report.Relabelled, name) {
			t.Errorf("%s was not labelled, or the report does not say so", name)
		}
	}
	if all := strings.Join(calls, "\n"); strings.Contains(all, "apt") || strings.Contains(all, "dpkg") || strings.Contains(all, target.DNF) {
		t.Errorf("ran\n%s", all)
	}

	before := snapshot(t, m.Root(), true)
	m.bake()
	if d := before.diff(snapshot(t, m.Root(), true)); d != nil {
		t.Errorf("the second bake changed:\n%s", strings.Join(d, "\n"))
	}
	if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
		t.Errorf("%q, %v", ids(findings), err)
	}
	// An update leaves a file that was changed alone; where somebody puts the
	// package's own back, check and the next boot find it.
	m.put(target.PAMService, redhatStock(t, "pam.d-sshd"), 0o644)
	if findings, err := Check(t.Context(), m.Target); err != nil || !slices.Contains(ids(findings), "pam-block "+target.PAMService) {
		t.Errorf("%q, %v", ids(findings), err)
	}
	if changed, err := repaired(t, m.machine, false); !changed || err != nil {
		t.Errorf("repair: %v, %v", changed, err)
	}
	golden(t, "rhel9-pam.d-sshd.golden", m.read(target.PAMService))
}

func TestRedHatOnRequest(t *testing.T) {
	m := newRedHat(t)
	before := snapshot(t, m.Root(), false)
	_, err := Run(t.Context(), m.Target, m.machine.options())
	if !errors.Is(err, ErrUntested) || !strings.Contains(err.Error(), "allow_untested_system") || !strings.Contains(err.Error(), "Rocky Linux 9.6") {
		t.Errorf("%v", err)
	}
	if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
		t.Errorf("changed:\n%s", strings.Join(d, "\n"))
	}
	// The word is not for systems that no row is about.
	m.put(target.OSRelease, "ID=rocky\nVERSION_ID=8.10\n", 0o644)
	if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, ErrSystem) || !strings.Contains(err.Error(), "Rocky Linux 9 and newer") {
		t.Errorf("8.10: %v", err)
	}
}

func TestRedHatRefuses(t *testing.T) {
	const pam = "auth       substack     password-auth"
	for _, test := range []struct {
		name   string
		damage func(*redhatMachine)
		err    error
		where  string
	}{
		{"faillock in postlogin", func(m *redhatMachine) {
			m.edit("/etc/pam.d/postlogin", "# Generated", "auth [default=die] pam_faillock.so authfail\n# Generated")
		}, ErrPAM, "/etc/pam.d/postlogin:2"},
		{"u2f in postlogin", func(m *redhatMachine) {
			m.edit("/etc/pam.d/postlogin", "# Generated", "auth sufficient pam_u2f.so\n# Generated")
		}, ErrPAM, "/etc/pam.d/postlogin:2"},
		{"postlogin that includes", func(m *redhatMachine) {
			m.edit("/etc/pam.d/postlogin", "# Generated", "auth include system-auth\n# Generated")
		}, ErrPAM, "/etc/pam.d/postlogin:2"},
		{"no postlogin", func(m *redhatMachine) { m.must(m.Remove("/etc/pam.d/postlogin")) }, ErrPAM, target.PAMService + ":3"},
		{"password twice", func(m *redhatMachine) { m.edit(target.PAMService, pam, pam+"\n"+pam) }, ErrPAM, target.PAMService + ":3"},
		{"no password line", func(m *redhatMachine) { m.edit(target.PAMService, pam, "auth required pam_sss.so") }, ErrPAM, target.PAMService + ":2"},
		{"sshd started with other options", func(m *redhatMachine) { m.edit(redhatUnit, "$OPTIONS", "$OPTIONS $CRYPTO_POLICY") }, ErrUnit, "sshd.service"},
		{"sshd masked", func(m *redhatMachine) { m.must(m.Symlink("/dev/null", "/etc/systemd/system/sshd.service")) }, ErrUnit, "systemctl unmask sshd.service"},
		{"FIPS 140", func(m *redhatMachine) { m.put(target.CryptoPolicyState, "FIPS:OSPP\n", 0o644) }, ErrAlgorithms, "FIPS:OSPP"},
		{"restorecon fails", func(m *redhatMachine) {
			m.fail[target.Restorecon] = targettest.Answer{Stderr: "denied", Err: errCommand}
		}, errCommand, "selinux: restorecon"},
	} {
		m := newRedHat(t)
		test.damage(m)
		before := snapshot(t, m.Root(), false)
		if _, err := Run(t.Context(), m.Target, m.options()); !errors.Is(err, test.err) || !strings.Contains(err.Error(), test.where) {
			t.Errorf("%s: %v, want %v with %q", test.name, err, test.err, test.where)
		}
		if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
			t.Errorf("%s: not restored:\n%s", test.name, strings.Join(d, "\n"))
		}
	}
}

func TestRedHatNoModule(t *testing.T) {
	m := newRedHat(t)
	m.put(target.CloudInit, elfAMD64, 0o755)
	o := m.options()
	o.Policy.CloudInitModule = true
	if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrCloudInit) || !strings.Contains(err.Error(), "Rocky Linux 9.6") {
		t.Errorf("%v", err)
	}
}

// Under FIPS 140 the algorithms are the system's.
func TestRedHatFIPS(t *testing.T) {
	m := newRedHat(t)
	m.put(target.CryptoPolicyState, "", 0o644)
	m.put(target.CryptoPolicyConfig, "# comment\nFIPS\n", 0o644)
	o := m.options()
	o.Policy.SSHD.Algorithms = policy.AlgorithmsDistro
	if _, err := Run(t.Context(), m.Target, o); err != nil {
		t.Fatal(err)
	}
	if text := m.read(target.SSHDDropIn); strings.Contains(text, "Ciphers") {
		t.Errorf("it has algorithms:\n%s", text)
	}
}

func TestRedHatPackages(t *testing.T) {
	const dnf = target.DNF + " -q -y install --setopt=install_weak_deps=False "
	noMatch4 := targettest.Answer{Stderr: "Error: Unable to find a match: google-authenticator", Err: errCommand}
	noMatch5 := targettest.Answer{Stderr: "Failed to resolve the transaction:\nNo match for argument: google-authenticator", Err: errCommand}
	for _, test := range []struct {
		name     string
		prepare  func(*redhatMachine)
		ran      []string // what dnf was asked to install
		err      error
		says     string
		untilEnd func(*testing.T, *redhatMachine)
	}{
		{name: "all there", prepare: func(*redhatMachine) {}},
		{name: "EPEL is enabled", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.must(m.Remove(target.SSH))
			m.dnf = func([]string) targettest.Answer {
				m.put(redhatModule, elfAMD64, 0o755)
				m.put(target.SSH, elfAMD64, 0o755)
				return targettest.Answer{}
			}
		}, ran: []string{"google-authenticator openssh-clients"}},
		{name: "EPEL by its package", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.dnf = func(names []string) targettest.Answer {
				switch {
				case slices.Contains(names, "epel-release"):
					m.rpms["epel-release"] = "9-9.el9"
				case m.rpms["epel-release"] == "":
					return noMatch4
				default:
					m.put(redhatModule, elfAMD64, 0o755)
				}
				return targettest.Answer{}
			}
		}, ran: []string{"google-authenticator", "epel-release", "google-authenticator"}},
		{name: "EPEL only by its address", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.put(target.OSRelease, "ID=rhel\nVERSION_ID=\"10.1\"\n", 0o644)
			m.dnf = func(names []string) targettest.Answer {
				return targettest.Answer{Stderr: "Error: Unable to find a match: " + names[0], Err: errCommand}
			}
		}, ran: []string{"google-authenticator", "epel-release"}, err: ErrPackage, says: "epel-release-latest-10.noarch.rpm"},
		{name: "EPEL by its package, without ours", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.dnf = func(names []string) targettest.Answer {
				if slices.Contains(names, "epel-release") {
					m.rpms["epel-release"] = "9-9.el9"
					return targettest.Answer{}
				}
				return noMatch5
			}
		}, ran: []string{"google-authenticator", "epel-release", "google-authenticator"}, err: ErrPackagesStay, says: "\nepel-release: installed"},
		{name: "EPEL without the package", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.rpms["epel-release"] = "9-9.el9"
			m.dnf = func([]string) targettest.Answer { return noMatch5 }
		}, ran: []string{"google-authenticator"}, err: ErrPackage, says: "epel-release is installed"},
		{name: "Fedora", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.put(target.OSRelease, "ID=fedora\nVERSION_ID=43\n", 0o644)
			m.dnf = func([]string) targettest.Answer { return noMatch5 }
		}, ran: []string{"google-authenticator"}, err: errCommand, says: "No match"},
		{name: "offline", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.dnf = func([]string) targettest.Answer {
				return targettest.Answer{Stderr: "Error: Failed to download metadata for repo 'baseos'", Err: errCommand}
			}
		}, ran: []string{"google-authenticator"}, err: errCommand, says: "Failed to download metadata"},
		{name: "no dnf", prepare: func(m *redhatMachine) {
			m.must(m.Remove(redhatModule))
			m.must(m.Remove(target.DNF))
		}, err: ErrPackage, says: target.DNF},
		{name: "no NTP client", prepare: func(m *redhatMachine) {
			m.must(m.Remove("/etc/systemd/system/multi-user.target.wants/chronyd.service"))
			m.must(m.Remove("/usr/lib/systemd/system/chronyd.service"))
			m.dnf = func([]string) targettest.Answer {
				m.put("/usr/lib/systemd/system/chronyd.service", "[Install]\nWantedBy=multi-user.target\n", 0o644)
				return targettest.Answer{}
			}
		}, ran: []string{"chrony"}, untilEnd: func(t *testing.T, m *redhatMachine) {
			if s := timeSync(m.Target); !s.on || s.unit != "chronyd.service" {
				t.Errorf("%+v", s)
			}
		}},
	} {
		m := newRedHat(t)
		test.prepare(m)
		_, err := Run(t.Context(), m.Target, m.options())
		if !errors.Is(err, test.err) || err != nil && !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %v with %q", test.name, err, test.err, test.says)
		}
		var ran []string
		for _, c := range m.Calls() {
			if args, ok := strings.CutPrefix(c, dnf); ok {
				ran = append(ran, args)
			}
		}
		if !slices.Equal(ran, test.ran) {
			t.Errorf("%s: dnf installed %q, want %q", test.name, ran, test.ran)
		}
		if test.untilEnd != nil {
			test.untilEnd(t, m)
		}
	}
}

func TestRedHatPackagesPresent(t *testing.T) {
	m := newRedHat(t)
	m.must(m.Remove(redhatModule))
	o := m.options()
	o.Policy.Packages = policy.PackagesPresent
	if _, err := Run(t.Context(), m.Target, o); !errors.Is(err, ErrPackage) || !strings.Contains(err.Error(), "google-authenticator") {
		t.Errorf("%v", err)
	}
	if calls := strings.Join(m.Calls(), "\n"); strings.Contains(calls, target.DNF) {
		t.Errorf("ran %s", calls)
	}
}

// dnf waits for a lock without end; the bake does not.
func TestDNFHangs(t *testing.T) {
	old := dnfPatience
	dnfPatience = time.Millisecond
	defer func() { dnfPatience = old }()
	m := newRedHat(t)
	m.must(m.Remove(redhatModule))
	m.SetRunner(waiting{m.Recorder})
	_, err := Run(t.Context(), m.Target, m.options())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "dnf did not end") {
		t.Errorf("%v", err)
	}
}

// waiting is a runner whose dnf ends only with its context.
type waiting struct{ *targettest.Recorder }

func (w waiting) Run(ctx context.Context, argv []string) (stdout, stderr []byte, err error) {
	if argv[0] == target.DNF {
		<-ctx.Done()
	}
	return w.Recorder.Run(ctx, argv)
}
