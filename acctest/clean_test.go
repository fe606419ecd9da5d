// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// used makes of a clone what a build leaves: a login of the build's account,
// cloud-init's state, secrets of a test boot, and traces.
func used(t *testing.T, r rootfs.Recipe, policy string) *machine {
	m := newGuestOf(t, r)
	if err := m.AddUser(t.Context(), rootfs.User{Name: "packer", Password: "build", SudoNoPass: true, Keys: []string{m.img.people["alice"].key.Public}}); err != nil {
		t.Fatal(err)
	}
	m.must("sh", "-euc", `
apt-get -q -y --no-download --no-install-recommends install cloud-init
mkdir -p /var/lib/cloud/seed/nocloud /etc/cloud/cloud.cfg.d
echo 'instance-id: i-build' >/var/lib/cloud/seed/nocloud/meta-data
printf '#cloud-config\nssh_deletekeys: false\nssh_pwauth: true\n' >/var/lib/cloud/seed/nocloud/user-data
printf 'version: 2\nethernets:\n  eth9: {dhcp4: true}\n' >/var/lib/cloud/seed/nocloud/network-config
echo 'datasource_list: [NoCloud]' >/etc/cloud/cloud.cfg.d/99-lab.cfg
cloud-init init --local >/dev/null 2>&1 || true
cloud-init init >/dev/null 2>&1 || true
case $0 in */sshd_config.d/*) cloud-init single --name set_passwords --frequency always ;; esac
test -d /var/lib/cloud/instance
# What this version has written for this machine; the rest is what it writes beside
# netplan, ifupdown or networkd, which are not in this root.
test -e $0
mkdir -p /etc/network/interfaces.d /etc/netplan /etc/systemd/network /etc/udev/rules.d
for f in /etc/network/interfaces.d/50-cloud-init /etc/udev/rules.d/70-persistent-net.rules /etc/netplan/50-cloud-init.yaml /etc/systemd/network/10-cloud-init-eth9.network /etc/ssh/sshd_config.d/50-cloud-init.conf; do [ -e $f ] || echo '# trace' >$f; done
rm -rf /var/lib/cloud/seed
printf '# User rules for packer\npacker ALL=(ALL) NOPASSWD:ALL\n' >/etc/sudoers.d/90-cloud-init-users
printf 'packer ALL=(ALL) \\\n  NOPASSWD:ALL\npacker,alice ALL=(ALL) ALL\n' >/etc/sudoers.d/50-mixed
chmod 0440 /etc/sudoers.d/*
printf 'packer ALL=(ALL) NOPASSWD: ALL\nUser_Alias BUILD = packer\nBUILD ALL=(ALL) NOPASSWD: ALL\nDefaults:packer !lecture\n' >>/etc/sudoers
visudo -c
printf 'AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/keys/%%u\n' >/etc/ssh/sshd_config.d/60-keys.conf
mkdir -p /var/lib/dhcp /var/log/journal/x /etc/ssh/keys
for f in /etc/ssh/keys/packer /etc/ssh/keys/alice /root/.google_authenticator /var/lib/apt/lists/x_Packages /var/cache/apt/pkgcache.bin /var/cache/apt/archives/x.deb /root/.bash_history /home/packer/.bash_history /var/lib/dhcp/dhclient.leases /var/lib/systemd/random-seed /var/log/auth.log /var/log/auth.log.1 /var/log/journal/x/system.journal /var/tmp/x; do echo trace >$f; done
`, renders[r.Suite])
	if _, err := bakeRoot(t.Context(), m.Root, policy); err != nil {
		t.Fatal(err)
	}
	m.ok("enroll")
	m.ok("deliver")
	return m
}

// renders is a file that each Debian's cloud-init writes for one machine in this
// lab, outside of its own directory.
var renders = map[string]string{
	rootfs.Debian11.Suite: "/etc/network/interfaces.d/50-cloud-init",
	rootfs.Debian12.Suite: "/etc/systemd/network/10-cloud-init-eth9.network",
	rootfs.Debian13.Suite: "/etc/ssh/sshd_config.d/50-cloud-init.conf",
}

type cleanReport struct {
	Clean struct {
		Done, Deferred, Kept []string
		Leaks                []struct {
			Kind, Path string
			Deferred   bool
		}
	}
}

// exists tells which of these files are there.
func (m *machine) exist(names ...string) (there []string) {
	for _, name := range names {
		if _, err := os.Lstat(m.Path(name)); err == nil {
			there = append(there, name)
		}
	}
	return there
}

var (
	gone = []string{pamStates + "/alice", "/var/lib/totp-agent/outbox/ready", envelopes, "/var/lib/cloud/instance", "/root/.bash_history", "/var/lib/dhcp/dhclient.leases", "/var/log/auth.log.1", "/var/log/cloud-init.log",
		"/root/.google_authenticator", "/var/lib/apt/lists/x_Packages", "/var/cache/apt/pkgcache.bin", "/var/cache/apt/archives/x.deb"}
	later = []string{"/etc/ssh/ssh_host_ed25519_key", "/root/.ssh/authorized_keys", "/etc/ssh/keys/packer", "/var/tmp/x", "/home/packer/.ssh/authorized_keys", "/etc/sudoers.d/90-cloud-init-users",
		"/etc/network/interfaces.d/50-cloud-init", "/etc/udev/rules.d/70-persistent-net.rules", "/etc/netplan/50-cloud-init.yaml", "/etc/systemd/network/10-cloud-init-eth9.network", "/etc/ssh/sshd_config.d/50-cloud-init.conf",
		"/var/lib/systemd/random-seed", "/etc/passwd-", "/var/log/journal/x/system.journal"}
	stays = []string{"/etc/ssh/keys/alice", "/home/alice/.ssh/authorized_keys", "/home/bob/.ssh/authorized_keys", "/etc/sudoers.d/50-mixed", "/var/lib/totp-agent/report.json", "/etc/totp-agent/image.yaml"}
)

// What the report says of it.
var (
	cleaned   = []string{"TOTP state of this machine", "cloud-init's state", "package lists and caches", "DHCP leases", "shell histories", "logs"}
	postponed = []string{"SSH host keys", "login keys", "machine-id", "what cloud-init had configured for this machine", "random seed", "DHCP leases that the shutdown wrote", "journal and logs of the build",
		"shell histories that the shutdown wrote", "temporary files", "backups of the user database",
		`the account "packer" with its home directory, password and sudo rules`}
)

// What a build has left is gone, or deferred until the build needs it no more;
// from outside nothing is found then.
func TestClean(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		for _, when := range []string{"shutdown", "boot"} {
			t.Run(r.Suite+"/"+when, func(t *testing.T) {
				t.Parallel()
				needLab(t)
				img, err := lab.image[r.Suite]()
				if err != nil {
					t.Fatal(err)
				}
				m := used(t, r, img.policy+"clean: {build_user: packer}\n")
				outside := func() string {
					agent, err := lab.agent()
					if err != nil {
						t.Fatal(err)
					}
					return run(t, exec.CommandContext(t.Context(), agent, "clean", "--check", "--root", m.Dir())).err
				}
				before := outside()
				for _, want := range []string{pamStates + "/alice: totp-secret", "ssh_host_ed25519_key: host-key", "/home/packer/.ssh/authorized_keys: authorized-key", "/etc/machine-id: machine-id",
					"/var/lib/cloud/instance: cloud-init-state", "packer: build-account", "packer: build-password", "/etc/sudoers.d/50-mixed: sudo-rule", "/etc/sudoers: sudo-rule", "/etc/ssh/keys/packer: authorized-key", "/root/.google_authenticator: totp-secret"} {
					if !strings.Contains(before, want) {
						t.Errorf("the leak check does not find %q in\n%s", want, before)
					}
				}

				var report cleanReport
				if err := json.Unmarshal([]byte(m.ok("clean", "--report").out), &report); err != nil {
					t.Fatal(err)
				}
				if there := m.exist(gone...); there != nil {
					t.Errorf("still there: %q", there)
				}
				if there := m.exist(later...); !slices.Equal(there, later) {
					t.Errorf("of what the build needs only %q are there", there)
				}
				m.must("sudo", "-u", "packer", "sudo", "-n", "true")
				m.must("/usr/sbin/sshd", "-t")
				keys := []string{"/etc/ssh/keys/alice (users)", "/home/alice/.ssh/authorized_keys (users)", "/home/bob/.ssh/authorized_keys (users)"}
				if !slices.Equal(report.Clean.Done, cleaned) || !slices.Equal(report.Clean.Deferred, postponed) || !slices.Equal(report.Clean.Kept, keys) || len(report.Clean.Leaks) < 5 {
					t.Errorf("report: %+v", report.Clean)
				}
				for _, l := range report.Clean.Leaks {
					if !l.Deferred {
						t.Errorf("a leak: %+v", l)
					}
				}
				id := m.must("cat", "/etc/machine-id")

				m.ok("clean", "--finish", when)
				if there := m.exist(append(gone, later...)...); there != nil && !(when == "boot" && slices.Equal(there, later[len(later)-1:])) {
					t.Errorf("still there: %q", there)
				}
				if there := m.exist(stays...); !slices.Equal(there, stays) {
					t.Errorf("of what is to stay only %q are there", there)
				}
				if s := run(t, m.Command(t.Context(), "id", "packer")); s.code == 0 {
					t.Error("the build's account is there")
				}
				if got := m.must("cat", "/etc/sudoers.d/50-mixed"); got != "alice ALL=(ALL) ALL\n" {
					t.Errorf("sudo rules: %q", got)
				}
				if got := m.must("visudo", "-c") + m.must("cat", "/etc/sudoers"); strings.Contains(got, "packer") || strings.Contains(got, "warning") {
					t.Errorf("sudo rules: %q", got)
				}
				if got := m.must("cat", "/var/log/auth.log"); strings.Contains(got, "trace") {
					t.Errorf("a log: %q", got)
				}
				now := m.must("cat", "/etc/machine-id")
				if when == "shutdown" && now != "" || when == "boot" && (len(now) != 33 || now == id) {
					t.Errorf("machine-id %q, was %q", now, id)
				}
				if when == "shutdown" {
					if got := outside(); got != "" {
						t.Errorf("from outside: %s", got)
					}
				}
				// It happened once: what the instance gets now, it keeps.
				m.must("ssh-keygen", "-A")
				if err := m.AddUser(t.Context(), rootfs.User{Name: "root", Keys: []string{img.people["root"].key.Public}}); err != nil {
					t.Fatal(err)
				}
				again := later[:2]
				if file := renders[r.Suite]; strings.Contains(file, "network") && when == "boot" {
					m.must("sh", "-euc", `mkdir -p /var/lib/cloud/seed/nocloud
echo 'instance-id: i-1' >/var/lib/cloud/seed/nocloud/meta-data
echo '#cloud-config' >/var/lib/cloud/seed/nocloud/user-data
printf 'version: 2\nethernets:\n  eth9: {addresses: [192.0.2.7/24]}\n' >/var/lib/cloud/seed/nocloud/network-config
cloud-init init --local
grep -q 192.0.2.7 $0`, file)
					again = append(slices.Clone(again), file)
				}
				m.ok("clean", "--finish", "boot")
				if there := m.exist(again...); len(there) != len(again) {
					t.Errorf("a second boot has left only %q", there)
				}
				if m.ok("check").out == "" {
					t.Error("check says nothing")
				}
			})
		}
	}
}

// An account that the policy or cloud-init names stays, and loses what the build
// gave it.
func TestCleanKeepsNamedAccounts(t *testing.T) {
	t.Parallel()
	m := used(t, rootfs.Debian12, "version: 1\nchannels: [{type: file}]\nclean: {build_user: packer}\n")
	m.must("sh", "-c", `printf 'system_info:\n  default_user:\n    name: packer\n' >/etc/cloud/cloud.cfg.d/00-user.cfg`)
	m.ok("clean")
	m.ok("clean", "--finish", "shutdown")
	m.must("id", "packer")
	if got := m.must("getent", "shadow", "packer"); !strings.HasPrefix(got, "packer:*:") {
		t.Error("it has a password")
	}
	if there := m.exist("/home/packer/.ssh/authorized_keys", "/etc/sudoers.d/90-cloud-init-users"); there != nil {
		t.Errorf("still there: %q", there)
	}
	if s := m.agent("clean", "--check"); strings.Contains(s.err, "packer") {
		t.Errorf("found: %s", s.err)
	}
}

// A disk that is mounted elsewhere runs no build: everything goes at once.
func TestCleanADisk(t *testing.T) {
	t.Parallel()
	m := used(t, rootfs.Debian12, "version: 1\nchannels: [{type: file}]\nclean: {build_user: packer}\n")
	agent, err := lab.agent()
	if err != nil {
		t.Fatal(err)
	}
	s := run(t, exec.CommandContext(t.Context(), agent, "clean", "--root", m.Dir()))
	if s.code != 0 {
		t.Fatalf("exit %d: %s", s.code, s.err)
	}
	if there := m.exist(append(gone, later...)...); there != nil {
		t.Errorf("still there: %q", there)
	}
}
