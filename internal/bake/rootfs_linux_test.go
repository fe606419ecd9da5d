// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// rootfs lays a writable layer over one of the Debians that TOTP_ROOTFS names,
// directories with systemd, openssh-server and cloud-init, such as
//
//	mmdebstrap --variant=apt --include=systemd-sysv,openssh-server,cloud-init,libpam-google-authenticator,sudo bookworm DIR
//
// joined by colons. The directory itself is not changed.
func rootfs(t *testing.T, lower string) *target.Target {
	t.Helper()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := exec.Command("mount", "-t", "overlay", "overlay", "-o",
		"lowerdir="+lower+",upperdir="+filepath.Join(dir, "upper")+",workdir="+filepath.Join(dir, "work"), root)
	if out, err := mount.CombinedOutput(); err != nil {
		if out, err := exec.Command("cp", "-a", lower+"/.", root).CombinedOutput(); err != nil {
			t.Fatalf("cp: %v\n%s", err, out)
		}
		t.Logf("no overlay, copied: %v\n%s", err, out)
	} else {
		t.Cleanup(func() {
			if out, err := exec.Command("umount", root).CombinedOutput(); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		})
	}
	if b, err := os.ReadFile("/etc/resolv.conf"); err == nil { // for apt
		os.WriteFile(filepath.Join(root, "etc/resolv.conf"), b, 0o644)
	}
	tg, err := target.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tg.Close() })
	return tg
}

func realOptions(t *testing.T) Options {
	t.Helper()
	self, err := os.Executable() // a program for this machine, as the agent is
	if err != nil {
		t.Fatal(err)
	}
	return Options{Policy: &policy.Policy{Version: 1, Issuer: "Example Hosting"}, Agent: self, Log: t.Output()}
}

func hostFile(t *testing.T, tg *target.Target, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(tg.Root(), name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// parts are the directories of a root that a bake is about.
var parts = []string{"/etc", "/usr/local", "/run", "/lib/systemd", "/var/lib/google-authenticator", "/var/lib/totp-agent", "/root"}

func snapshotParts(t *testing.T, tg *target.Target, times bool) state {
	t.Helper()
	s := state{}
	for _, p := range parts {
		real, err := tg.Resolve(p)
		if err != nil || !tg.Exists(real) {
			continue
		}
		for name, line := range snapshot(t, filepath.Join(tg.Root(), real), times && p != "/run") {
			s[p+name] = line
		}
	}
	// apt's own: the cache of the linker, and the backups of user databases
	for name := range s {
		if name == "/etc/ld.so.cache" {
			delete(s, name)
		}
	}
	return s
}

func rootfsDirs(t *testing.T) []string {
	t.Helper()
	roots := os.Getenv("TOTP_ROOTFS")
	skip := t.Skip
	if os.Getenv("CI") == "true" {
		skip = t.Fatal
	}
	if roots == "" {
		skip("TOTP_ROOTFS names no root file system; .ci/run makes them by mmdebstrap, as .cache/bake-root-SUITE, and joins their paths by colons")
	}
	if os.Geteuid() != 0 {
		skip("only root can mount and chroot")
	}
	return filepath.SplitList(roots)
}

// The whole bake with each Debian's own apt, sshd and systemd.
func TestRootfs(t *testing.T) {
	for _, dir := range rootfsDirs(t) {
		t.Run(filepath.Base(dir), func(t *testing.T) { testRootfs(t, dir) })
	}
}

// testGeneratedSockets asks systemd-ssh-generator for its sockets, where there is
// one, and systemd whether what they start has the options of our drop-in.
func testGeneratedSockets(t *testing.T, tg *target.Target) {
	const generator, made, drop = "/usr/lib/systemd/system-generators/systemd-ssh-generator", "/run/systemd/system", "/etc/systemd/system/sshd@.service.d/00-totp.conf"
	if !tg.Exists(generator) {
		return
	}
	if err := tg.Mkdir(made, 0o755); err != nil {
		t.Fatal(err)
	}
	defer tg.RemoveAll("/run/systemd")
	root := func(argv ...string) string {
		out, err := exec.Command("chroot", append([]string{tg.Root()}, argv...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", argv, err, out)
		}
		return string(out)
	}
	root("env", "SYSTEMD_IN_CHROOT=0", generator, made, made, made)
	text, err := tg.ReadFile(drop)
	if err != nil {
		t.Fatal(err)
	}
	hostFile(t, tg, drop, string(text)+"Unheard=of\n")
	out := root("systemd-analyze", "verify", "--man=no", "sshd-unix-local.socket")
	if err := tg.WriteFile(drop, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if !tg.Exists(made+"/sshd-unix-local.socket") || !strings.Contains(out, drop) || !strings.Contains(out, "Unheard") {
		t.Errorf("the drop-in is not that of the unit for sshd-unix-local.socket: %q", out)
	}
}

func testRootfs(t *testing.T, dir string) {
	tg := rootfs(t, dir)
	o := realOptions(t)
	if err := exec.Command("chroot", tg.Root(), "useradd", "-m", "-s", "/bin/bash", "alice").Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Run(t.Context(), tg, o); err != nil {
		t.Fatal(err)
	}

	t.Run("again", func(t *testing.T) {
		before := snapshotParts(t, tg, true)
		if _, err := Run(t.Context(), tg, o); err != nil {
			t.Fatal(err)
		}
		if d := before.diff(snapshotParts(t, tg, true)); d != nil {
			t.Errorf("changed:\n%s", strings.Join(d, "\n"))
		}
	})

	t.Run("check", func(t *testing.T) {
		before := snapshotParts(t, tg, true)
		findings, err := Check(t.Context(), tg)
		if err != nil || len(findings) > 0 {
			t.Errorf("%q, %v", ids(findings), err)
		}
		if d := before.diff(snapshotParts(t, tg, true)); d != nil {
			t.Errorf("changed:\n%s", strings.Join(d, "\n"))
		}
	})

	t.Run("units", func(t *testing.T) {
		if !tg.HasCommand("systemd-analyze") {
			t.Skip("no systemd-analyze in this root")
		}
		// At a boot cloud-init's generator does this.
		const generated = "/etc/systemd/system/multi-user.target.wants/cloud-init.target"
		if err := tg.Symlink("/lib/systemd/system/cloud-init.target", generated); err != nil {
			t.Fatal(err)
		}
		defer tg.Remove(generated)
		verify := func() string {
			out, _ := exec.Command("chroot", tg.Root(), "systemd-analyze", "verify", "--man=no", "default.target", target.AgentService, target.DeliverTimer, target.LoginsPath).CombinedOutput()
			var about []string
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "totp-") || strings.Contains(line, "ssh") || strings.Contains(line, "cycle") {
					about = append(about, line)
				}
			}
			return strings.Join(about, "")
		}
		if out := verify(); out != "" {
			t.Errorf("systemd-analyze verify:\n%s", out)
		}
		// The same with sshd started by its socket, as an administrator may wish.
		const socket, wants = "/etc/systemd/system/ssh.socket", "/etc/systemd/system/sockets.target.wants"
		if err := errors.Join(tg.Remove(socket), tg.Mkdir(wants, 0o755), tg.Symlink("/lib/systemd/system/ssh.socket", wants+"/ssh.socket")); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(tg.RemoveAll(wants), tg.Symlink("/dev/null", socket)); err != nil {
				t.Fatal(err)
			}
		}()
		if out := verify(); out != "" {
			t.Errorf("with ssh.socket:\n%s", out)
		}
		if o, err := tg.OS(); err != nil || o.VersionID == "11" {
			return // systemd 247 verifies units one by one, and sees no cycle
		}
		testGeneratedSockets(t, tg)
		// This test sees a cycle where there is one.
		unit := target.SystemdUnitDir + "/" + target.AgentService
		text, err := tg.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		hostFile(t, tg, unit, strings.Replace(string(text), "After=cloud-init.service", "After=cloud-final.service", 1))
		if out := verify(); !strings.Contains(out, "cycle") {
			t.Errorf("an order after cloud-final.service was not seen as a cycle: %q", out)
		}
		if err := tg.WriteFile(unit, text, 0o644); err != nil {
			t.Fatal(err)
		}
	})

	// effective asks the root's sshd, as check does.
	effective := func(t *testing.T, user, keyword string) string {
		t.Helper()
		s, err := openSSHD(t.Context(), tg)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		m, err := s.effective(t.Context(), connection{user, netip.MustParseAddr("192.0.2.1")})
		if err != nil {
			t.Fatal(err)
		}
		return m[keyword]
	}

	t.Run("later drop-ins lose", func(t *testing.T) {
		const late = "/etc/ssh/sshd_config.d/99-late.conf"
		hostFile(t, tg, late, "UsePAM no\nPasswordAuthentication yes\nAuthenticationMethods publickey\nX11Forwarding yes\n"+
			"Match User *\n\tAuthenticationMethods publickey\n\tPasswordAuthentication yes\n\tKbdInteractiveAuthentication no\n")
		defer tg.Remove(late)
		if findings, err := Check(t.Context(), tg); err != nil || len(findings) > 0 {
			t.Errorf("%q, %v", ids(findings), err)
		}
		// Without the closing Match block the same file would win.
		text, err := tg.ReadFile(target.SSHDDropIn)
		if err != nil {
			t.Fatal(err)
		}
		open, _, _ := strings.Cut(string(text), "Match all")
		hostFile(t, tg, target.SSHDDropIn, open)
		hostFile(t, tg, target.SSHDLogin, open)
		findings, err := Check(t.Context(), tg)
		if got := strings.Join(ids(findings), " "); err != nil || !strings.Contains(got, "sshd-effective") || !strings.Contains(got, "file-altered") {
			t.Errorf("without the Match block: %q, %v", got, err)
		}
		hostFile(t, tg, target.SSHDDropIn, string(text))
		hostFile(t, tg, target.SSHDLogin, string(text))
	})

	t.Run("notice", func(t *testing.T) {
		if got := effective(t, "alice", "banner"); got != "none" {
			t.Errorf("banner %q before there is a notice", got)
		}
		if err := errors.Join(tg.Mkdir(target.RunDir, 0o755), tg.WriteFile(target.NoticeConf, []byte("Banner "+target.Notice+"\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		if got := effective(t, "alice", "banner"); got != target.Notice {
			t.Errorf("banner %q", got)
		}
		tg.RemoveAll(target.RunDir)
	})

	t.Run("a failing bake restores", func(t *testing.T) {
		const bad = "/etc/ssh/sshd_config.d/99-bad.conf"
		hostFile(t, tg, bad, "NoSuchKeyword yes\n")
		defer tg.Remove(bad)
		before := snapshotParts(t, tg, false)
		o := o
		o.Policy = &policy.Policy{Version: 1, Issuer: "Other"}
		if _, err := Run(t.Context(), tg, o); !errors.Is(err, ErrSSHDRefuses) || !strings.Contains(err.Error(), "NoSuchKeyword") {
			t.Errorf("got %v", err)
		}
		if d := before.diff(snapshotParts(t, tg, false)); d != nil {
			t.Errorf("not restored:\n%s", strings.Join(d, "\n"))
		}
	})

	t.Run("no host keys", func(t *testing.T) {
		keys, _ := filepath.Glob(filepath.Join(tg.Root(), "etc/ssh/ssh_host_*"))
		if len(keys) == 0 {
			t.Log("the root had none from the beginning")
		}
		for _, k := range keys {
			os.Remove(k)
		}
		before := snapshotParts(t, tg, true)
		if _, err := Run(t.Context(), tg, o); err != nil {
			t.Fatal(err)
		}
		if findings, err := Check(t.Context(), tg); err != nil || len(findings) > 0 {
			t.Errorf("%q, %v", ids(findings), err)
		}
		if d := before.diff(snapshotParts(t, tg, true)); d != nil {
			t.Errorf("left behind:\n%s", strings.Join(d, "\n"))
		}
	})
}
