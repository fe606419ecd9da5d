// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Firewall is a firewall that runs on the machine of the build, and lets neither SSH
// in nor time out before the bake. Packer's own connection is there by then, and
// goes on.
type Firewall struct {
	Name     string   // of the firewall, as the report has it
	Packages []string // of Debian
	Files    map[string]string

	// Close is a shell script of an administrator's, for root: nothing comes in
	// but what belongs to what goes out.
	Close string
	// Out says that names and TCP alone go out by then, which apt needs.
	Out bool

	Look  string   // shell script that shows what holds, for root
	Shows []string // parts of that, after a bake
	Open  string   // shell script that lets TCP to port 2200 in, until the next boot
	Off   string   // shell script after which the boots that follow do without, where it takes long to start
}

// UFW is the Uncomplicated Firewall.
var UFW = Firewall{
	Name:     "ufw",
	Packages: []string{"ufw"},
	Close: `
sed -i 's/^DEFAULT_OUTPUT_POLICY=.*/DEFAULT_OUTPUT_POLICY="DROP"/' /etc/default/ufw
sed -i '/^COMMIT/i -A ufw-before-output -p tcp -j ACCEPT\n-A ufw-before-output -p udp --dport 53 -j ACCEPT' /etc/ufw/before.rules
ufw --force enable
`,
	Out:  true,
	Look: "LC_ALL=C ufw status verbose",
	Shows: []string{
		"Status: active\n", "Default: deny (incoming), deny (outgoing)",
		"\n22/tcp                     ALLOW IN    Anywhere", "\n22/tcp (v6)                ALLOW IN    Anywhere (v6)",
		"\n123/udp                    ALLOW OUT   Anywhere", "\n123/udp (v6)               ALLOW OUT   Anywhere (v6)",
	},
	Open: "iptables -I ufw-user-input -p tcp --dport 2200 -j ACCEPT",
}

// Firewalld is firewalld. It lets through what the host itself sends: that of Debian
// 11 (0.9.3), with a policy that drops it, drops the answers of sshd as well, since it
// knows nothing of connections on the way out.
var Firewalld = Firewall{
	Name:     "firewalld",
	Packages: []string{"firewalld"},
	// Debian's own unit has Before=network-pre.target, which is before cloud-init's,
	// which are before sysinit.target, which is before firewalld: systemd drops one of
	// them at random. Who has both has a unit like this (firewalld's issue 414).
	Files: map[string]string{"/etc/systemd/system/firewalld.service": `[Unit]
Description=firewalld
Before=network.target
After=dbus.service

[Service]
Type=dbus
BusName=org.fedoraproject.FirewallD1
ExecStart=/usr/sbin/firewalld --nofork --nopid
KillMode=mixed

[Install]
WantedBy=multi-user.target
Alias=dbus-org.fedoraproject.FirewallD1.service
`},
	Close: `
echo '<zone><service name="dhcpv6-client"/></zone>' >/etc/firewalld/zones/public.xml
firewall-cmd --reload
! firewall-cmd --query-service=ssh
`,
	Look:  "firewall-cmd --state; firewall-cmd --list-all",
	Shows: []string{"running\npublic", "services: dhcpv6-client ssh\n"},
	Open:  "firewall-cmd --add-port=2200/tcp",
	Off:   "systemctl disable --quiet firewalld",
}

// ErrTemplate says that the example has no place for another provisioner.
var ErrTemplate = errors.New("the example's template is not as expected")

// template returns the directory of the template that is built: the example, or
// a copy of it in which the firewall is closed ahead of our provisioner.
func (l *Lab) template() (string, error) {
	if l.Firewall == nil {
		return l.Example(), nil
	}
	script := filepath.Join(l.Work, "close-firewall.sh")
	if err := os.WriteFile(script, []byte(l.Firewall.Close), 0o600); err != nil {
		return "", err
	}
	example, err := os.ReadFile(filepath.Join(l.Example(), "debian.pkr.hcl"))
	if err != nil {
		return "", err
	}
	const ours = "\n  provisioner \"totp\" {\n"
	if bytes.Count(example, []byte(ours)) != 1 {
		return "", fmt.Errorf("%w: the line %q is not in it once", ErrTemplate, ours)
	}
	shell := fmt.Sprintf("\n  provisioner \"shell\" {\n    script          = %q\n    execute_command = \"sudo sh -eux {{ .Path }}\"\n  }\n", script)
	dir := filepath.Join(l.Work, "template")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "debian.pkr.hcl"), bytes.Replace(example, []byte(ours), []byte(shell+ours), 1), 0o644)
}
