// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// The firewalls' own programs, offline as in a build's root.
func TestFirewalls(t *testing.T) {
	t.Parallel()
	needLab(t)
	for _, r := range rootfs.Debians {
		t.Run(r.Name, func(t *testing.T) {
			t.Parallel()
			testFirewalls(t, r)
		})
	}
}

// Rules of nft's that somebody has written are read, with the real package's unit,
// and never changed.
func TestNftables(t *testing.T) {
	t.Parallel()
	needLab(t)
	m := newGuestOf(t, rootfs.Debian12)
	shell := func(script string) {
		t.Helper()
		if _, err := m.Shell(t.Context(), script); err != nil {
			t.Fatal(err)
		}
	}
	shell("apt-get install --yes --quiet --no-install-recommends --no-download nftables\nsystemctl enable --quiet nftables")
	for _, tt := range []struct {
		name, rules string
		want        []string // parts of what check says of them
	}{
		{"as installed", "", nil},
		{"dropping", "chain input { type filter hook input priority 0; policy drop; tcp dport 80 accept; }\nchain output { type filter hook output priority 0; policy drop; }",
			[]string{"no rule for 22/tcp", "no rule for 123/udp"}},
		{"with holes", "chain input { type filter hook input priority 0; policy drop; tcp dport { 20-25, 80 } accept; }\nchain output { type filter hook output priority 0; policy drop; udp dport 123 accept; }", nil},
	} {
		if tt.rules != "" {
			shell("printf '%s\\n' '#!/usr/sbin/nft -f' 'table inet filter {' '" + tt.rules + "' '}' >/etc/nftables.conf")
		}
		shell("unshare --net nft --check --file /etc/nftables.conf") // they are nft's
		before := snapshot(t, m.Path("/etc/nftables.conf"))
		if out, err := bakeRoot(t.Context(), m.Root, m.img.policy); err != nil {
			t.Fatalf("%s: %v\n%s", tt.name, err, out)
		}
		if got := changed(before, snapshot(t, m.Path("/etc/nftables.conf"))); len(got) != 0 {
			t.Errorf("%s: changed %v", tt.name, got)
		}
		s := m.agent("check")
		for _, want := range tt.want {
			if !strings.Contains(s.out, want) {
				t.Errorf("%s: no %q in\n%s", tt.name, want, s.out)
			}
		}
		if len(tt.want) == 0 && strings.Contains(s.out, "nftables") {
			t.Errorf("%s:\n%s", tt.name, s.out)
		}
	}
}

func testFirewalls(t *testing.T, r rootfs.Recipe) {
	root, err := rootfs.New(t.Context(), rootfs.Options{Recipe: r, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	m := &machine{Root: root, t: t, dir: t.TempDir()}
	const (
		ufwRules = "ufw show added"
		zone     = "firewall-offline-cmd --list-all"
		active   = "systemctl is-enabled systemd-timesyncd"
	)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(m.Path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	shell := func(script string) string {
		t.Helper()
		out, err := m.Shell(t.Context(), script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	bake := func() string {
		t.Helper()
		out, err := bakeRoot(t.Context(), m.Root, "version: 1\nissuer: Example Hosting\n")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	etc := func() map[string]string { return snapshot(t, m.Path("/etc")) }

	// Those that bake knows, which are not in the way of each other while they do
	// not run.
	shell("apt-get install --yes --quiet --no-install-recommends --no-download ufw firewalld")

	// Installed and not enabled: nothing is touched.
	shell("systemctl disable --quiet firewalld")
	if out := bake(); !strings.Contains(out, "firewall: none is active") {
		t.Errorf("none is active:\n%s", out)
	}
	if got := strings.TrimSpace(shell(active)); got != "enabled" {
		t.Errorf("the NTP client is %s", got)
	}
	if out := shell(ufwRules); !strings.Contains(out, "(None)") {
		t.Errorf("%s", out)
	}

	// sshd on another port as well, and both firewalls, one of which drops what the
	// host sends.
	write("/etc/ssh/sshd_config.d/ports.conf", "Port 22\nPort 2222\n")
	shell(`sed -i 's/^ENABLED=no/ENABLED=yes/' /etc/ufw/ufw.conf
systemctl enable --quiet firewalld
for c in --new-policy=out "--policy=out --add-ingress-zone=HOST" "--policy=out --add-egress-zone=ANY" "--policy=out --set-target=DROP"; do
	firewall-offline-cmd $c >/dev/null
done`)
	before := etc()
	out := bake()
	for _, want := range []string{"ufw lets 22/tcp in, 2222/tcp in, 123/udp out through now", "firewalld lets 2222/tcp in, 123/udp out through now"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if left := changed(before, etc()); len(left) == 0 {
		t.Error("nothing was changed")
	}
	rules := shell(ufwRules)
	for _, want := range []string{"ufw allow 22/tcp", "ufw allow 2222/tcp", "ufw allow out 123/udp"} {
		if !strings.Contains(rules, want) {
			t.Errorf("no %q in\n%s", want, rules)
		}
	}
	// Those rules are what ufw itself loads.
	if text := shell("cat /etc/ufw/user.rules /etc/ufw/user6.rules"); strings.Count(text, "-p tcp --dport 2222 -j ACCEPT") != 2 {
		t.Errorf("%s", text)
	}
	if text := shell("grep ^ENABLED /etc/ufw/ufw.conf"); text != "ENABLED=yes\n" {
		t.Errorf("%q", text)
	}
	if text := shell(zone + "; firewall-offline-cmd --info-policy=out"); !strings.Contains(text, "services: dhcpv6-client ssh\n  ports: 2222/tcp\n") || !strings.Contains(text, "services: ntp\n") {
		t.Errorf("%s", text)
	}
	if left := m.list("/run/totp-agent"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}

	// Again, nothing.
	before = etc()
	if out := bake(); !strings.Contains(out, "ufw has the rules already; firewalld has the rules already") {
		t.Errorf("again:\n%s", out)
	}
	if got := changed(before, etc()); len(got) != 0 {
		t.Errorf("again: changed %v", got)
	}
	if s := m.agent("check"); s.code != 0 || strings.Contains(s.out, "firewall") || !strings.Contains(s.out, "clock: unknown") {
		t.Errorf("check: exit %d\n%s%s", s.code, s.out, s.err)
	}

	// Debian's units of firewalld and cloud-init wait for each other, where both can
	// be installed.
	if r.Suite != rootfs.Debian13.Suite {
		shell(`dpkg-deb --fsys-tarfile /var/cache/apt/archives/cloud-init_*.deb | tar --extract --directory=/ ./lib/systemd/system/cloud-init.service`)
		if s := m.agent("check"); s.code != 0 || !strings.Contains(s.out, "firewalld.service waits for cloud-init") {
			t.Errorf("check: exit %d\n%s%s", s.code, s.out, s.err)
		}
		shell(`sed /network-pre/d /lib/systemd/system/firewalld.service >/etc/systemd/system/firewalld.service`)
		if s := m.agent("check"); s.code != 0 || strings.Contains(s.out, "cloud-init") {
			t.Errorf("check with a unit of one's own: exit %d\n%s%s", s.code, s.out, s.err)
		}
	}

	// Rules that somebody takes away are missed, and a bake that fails after the
	// firewalls takes its own away.
	shell(`sed -i 's/^ENABLED=yes/ENABLED=no/' /etc/ufw/ufw.conf
ufw delete allow 2222/tcp
sed -i 's/^ENABLED=no/ENABLED=yes/' /etc/ufw/ufw.conf
firewall-offline-cmd --policy=out --remove-service-from-policy=ntp
rm /var/lib/totp-agent/report.json
mkdir /var/lib/totp-agent/report.json`)
	if s := m.agent("check"); s.code != 0 || !strings.Contains(s.out, "ufw: has no rule that lets 2222/tcp in") || !strings.Contains(s.out, "firewalld: has no rule that lets 123/udp out") {
		t.Errorf("check: exit %d\n%s%s", s.code, s.out, s.err)
	}
	before = etc()
	if out, err := bakeRoot(t.Context(), m.Root, "version: 1\nissuer: Example Hosting\n"); err == nil || !strings.Contains(fmt.Sprint(out, err), "lets 2222/tcp in through now") {
		t.Errorf("%v\n%s", err, out)
	}
	if got := changed(before, etc()); len(got) != 0 {
		t.Errorf("not restored: %v", got)
	}
}
