// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

func TestListenPorts(t *testing.T) {
	for text, want := range map[string][]int{
		"": {22},
		"port 22\nlistenaddress [::]:22\nlistenaddress 0.0.0.0:22\n":              {22},
		"listenaddress 0.0.0.0:2222\nlistenaddress 192.0.2.1:22\nport 2222\n":     {22, 2222},
		"listenaddress 127.0.0.1:2200\nlistenaddress [::1]:2200\n":                {22},
		"listenaddress [2001:db8::1]:2022\nlistenaddress 127.0.0.1:22\nfoo 1:2\n": {2022},
	} {
		if got := listenPorts(text); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

var sshIn = need{proto: "tcp", port: 22}

func TestUFWTuples(t *testing.T) {
	for _, c := range []struct {
		tuple string
		need  need
		want  bool
	}{
		{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", sshIn, true},
		{"allow any 22 0.0.0.0/0 any 0.0.0.0/0 in", sshIn, true},
		{"allow any any 0.0.0.0/0 any 192.0.2.0/24 in", sshIn, true},
		{"limit_log tcp 22 0.0.0.0/0 any 10.0.0.0/8 in", sshIn, true},
		{"allow tcp 22,80 0.0.0.0/0 any 0.0.0.0/0 in_eth0", sshIn, true},
		{"allow tcp 20:25 0.0.0.0/0 any 0.0.0.0/0 in", sshIn, true},
		{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 OpenSSH - in", sshIn, true},
		{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=7373682069", sshIn, true},
		{"allow tcp 222 0.0.0.0/0 any 0.0.0.0/0 in", sshIn, false},
		{"allow udp 22 0.0.0.0/0 any 0.0.0.0/0 in", sshIn, false},
		{"allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 out", sshIn, false},
		{"route:allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in", sshIn, false},
		{"allow udp 123 0.0.0.0/0 any 0.0.0.0/0 out", ntpOut, true},
		{"allow udp 123 0.0.0.0/0 any 0.0.0.0/0 in", ntpOut, false},
	} {
		ts := ufwTuples([]byte("*filter\n### tuple ### " + c.tuple + "\n-A ufw-user-input -j ACCEPT\n"))
		if got := len(ts) == 1 && ts[0].about(c.need); got != c.want {
			t.Errorf("%q is about %v: %v", c.tuple, c.need, got)
		}
	}
}

func FuzzUFWTuples(f *testing.F) {
	f.Add("### tuple ### allow tcp 22,20:25 0.0.0.0/0 any 0.0.0.0/0 in_eth0 comment=00")
	f.Add("### tuple ### comment= a b c d e f")
	f.Fuzz(func(t *testing.T, text string) {
		for _, u := range ufwTuples([]byte(text)) {
			u.about(sshIn)
		}
	})
}

// fakeUFW is a ufw that keeps its rules as the real one does, in the directory
// that it is given.
func fakeUFW(m *machine, rules string) {
	m.put(target.UFW, elfAMD64, 0o755)
	m.put(ufwConf, "# ENABLED=no\nENABLED=yes\nLOGLEVEL=low\n", 0o644)
	m.put(target.UFWDefaults, "IPV6=yes\n", 0o644)
	m.put(ufwRules, rules, 0o640)
	answer := m.Handle
	m.Handle = func(argv []string) targettest.Answer {
		if argv[0] != target.UFW {
			return answer(argv)
		}
		dir, ok := strings.CutPrefix(argv[1], "--datadir=")
		if !ok || len(argv) != 5 || argv[2] != "allow" {
			m.tb.Errorf("%q", argv)
			return targettest.Answer{}
		}
		if ufwEnabled.has([]byte(m.read(dir + ufwConf))) {
			m.tb.Error("ufw would change the kernel's rules")
		}
		port, proto, _ := strings.Cut(argv[4], "/")
		m.put(dir+ufwRules, m.read(dir+ufwRules)+fmt.Sprintf("### tuple ### allow %s %s 0.0.0.0/0 any 0.0.0.0/0 %s\n", proto, port, argv[3]), 0o600)
		return targettest.Answer{}
	}
}

func TestUFW(t *testing.T) {
	const allow22, allow123 = "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n", "### tuple ### allow udp 123 0.0.0.0/0 any 0.0.0.0/0 out\n"
	const some = "### tuple ### limit tcp 22 0.0.0.0/0 any 192.0.2.0/24 in\n"
	const deny = "### tuple ### deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n"
	for _, c := range []struct {
		name, before, after, finding string
		report                       ReportFirewall
	}{
		{"no rules", "", allow22 + allow123, "", ReportFirewall{Allowed: []string{"22/tcp in", "123/udp out"}}},
		{"its own rules", allow22 + allow123, allow22 + allow123, "", ReportFirewall{}},
		{"a rule for some addresses", some, some + allow123, "", ReportFirewall{Allowed: []string{"123/udp out"}}},
		{"a rule against it", deny, deny + allow123, "forbids", ReportFirewall{Allowed: []string{"123/udp out"},
			Denied: []string{`the rule "deny tcp 22 0.0.0.0/0 any 0.0.0.0/0 in" forbids 22/tcp in`}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			fakeUFW(m, c.before)
			r := m.bake()
			if len(r.Firewall) != 1 || r.Firewall[0].Name != "ufw" || !slices.Equal(r.Firewall[0].Allowed, c.report.Allowed) || !slices.Equal(r.Firewall[0].Denied, c.report.Denied) {
				t.Errorf("report: %+v, want %+v", r.Firewall, c.report)
			}
			if got := m.read(ufwRules); got != c.after {
				t.Errorf("%q", got)
			}
			if fi, err := m.Lstat(ufwRules); err != nil || fi.Mode().Perm() != 0o640 {
				t.Errorf("%v, %v", fi.Mode(), err)
			}
			if m.Exists(target.RunDir) {
				t.Error("the copy is still there")
			}
			before := snapshot(t, m.Root(), true)
			m.bake()
			if d := before.diff(snapshot(t, m.Root(), true)); d != nil {
				t.Errorf("again:\n%s", strings.Join(d, "\n"))
			}
			findings, err := Check(t.Context(), m.Target)
			m.must(err)
			if c.finding == "" && len(findings) != 0 || c.finding != "" && (len(findings) != 1 || !strings.Contains(findings[0].What, c.finding)) {
				t.Errorf("%+v", findings)
			}
		})
	}
}

func TestFirewallLeftAlone(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*machine, *policy.Policy)
		finding bool
	}{
		{"not enabled", func(m *machine, _ *policy.Policy) { m.put(ufwConf, "ENABLED=no\n", 0o644) }, false},
		{"by the policy", func(_ *machine, p *policy.Policy) { p.Firewall = policy.FirewallNone }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			fakeUFW(m, "")
			o := m.options()
			c.prepare(m, o.Policy)
			_, err := Run(t.Context(), m.Target, o)
			m.must(err)
			if got := m.read(ufwRules); got != "" {
				t.Errorf("%q", got)
			}
			if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) != 0 {
				t.Errorf("%+v, %v", findings, err)
			}
		})
	}
}

// A bake that fails after the firewall's step takes its rules back.
func TestFirewallUndone(t *testing.T) {
	m := newMachine(t)
	fakeUFW(m, "# mine\n")
	m.put(target.StateDir+"/x", "", 0o600)
	before := snapshot(t, m.Root(), false)
	m.put(target.Report+"/in the way", "", 0o600)
	if _, err := Run(t.Context(), m.Target, m.options()); err == nil {
		t.Fatal("no error")
	}
	m.must(m.RemoveAll(target.Report))
	if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
		t.Errorf("not restored:\n%s", strings.Join(d, "\n"))
	}
}

const firewalldZone = `public
  target: default
  icmp-block-inversion: no
  services: dhcpv6-client ssh
  ports: 2200-2300/tcp 53/udp
  forward: yes
  rich rules: 
	rule family="ipv4" source address="192.0.2.0/24" port port="2022" protocol="tcp" accept
	rule family="ipv4" source address="192.0.2.0/24" service name="ntp" accept
`

func TestFirewalldList(t *testing.T) {
	l := parseFirewalldList([]byte(firewalldZone))
	for n, want := range map[need]bool{
		sshIn:                       true,
		{proto: "tcp", port: 2222}:  true,
		{proto: "tcp", port: 2022}:  true,
		{proto: "udp", port: 2222}:  false,
		{proto: "tcp", port: 2301}:  false,
		{"udp", 123, true}:          true,
		{proto: "udp", port: 53}:    true,
		{proto: "tcp", port: 53}:    false,
		{proto: "tcp", port: 22000}: false,
	} {
		if got := l.allows(n); got != want {
			t.Errorf("%v: %v", n, got)
		}
	}
	if l["target"] != "default" {
		t.Errorf("%q", l["target"])
	}
}

func TestFirewalldPolicies(t *testing.T) {
	const text = `allow-host-ipv6 (active)
  priority: -15000
  target: CONTINUE
  ingress-zones: ANY
  egress-zones: HOST
  services: 
  rich rules: 
	rule family="ipv6" icmp-type name="redirect" accept

own (active)
  target: DROP
  ingress-zones: HOST
  egress-zones: ANY
  services: dns
  rich rules: 
	rule family="ipv4" source address="192.0.2.0/24" service name="ntp" accept

strict
  target: REJECT
  ingress-zones: HOST public
  services: ssh
  ports: 53/udp
  rich rules: 

forward (active)
  target: DROP
  ingress-zones: public
  services: ntp
`
	ps := parseFirewalldPolicies([]byte(text))
	if len(ps) != 2 || ps[0].option != "--policy=own" || ps[1].option != "--policy=strict" || !ps[0].out || !ps[1].out {
		t.Fatalf("%+v", ps)
	}
	if l := ps.lacking(ntpOut); len(l) != 1 || l[0].option != "--policy=strict" {
		t.Errorf("%+v", l)
	}
	if ps := parseFirewalldPolicies(nil); len(ps) != 0 {
		t.Errorf("of nothing: %+v", ps)
	}
}

func TestBootLoop(t *testing.T) {
	const ours, theirs = "[Unit]\nBefore=network-pre.target\n", "[Unit]\nBefore=network-online.target\nBefore=sysinit.target\n"
	for _, c := range []struct {
		name, ours, own, theirs string
		want                    bool
	}{
		{"Debian's units", ours, "", theirs, true},
		{"no cloud-init", ours, "", "", false},
		{"cloud-init of other systems", ours, "", "[Unit]\nBefore=network-online.target\n", false},
		{"firewalld of other systems", "[Unit]\nBefore=network.target\n", "", theirs, false},
		{"a unit of one's own", ours, "[Unit]\nBefore=network.target\n", theirs, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMachine(t)
			for name, text := range map[string]string{
				"/lib/systemd/system/firewalld.service": c.ours, "/etc/systemd/system/firewalld.service": c.own, "/lib/systemd/system/cloud-init.service": c.theirs,
			} {
				if text != "" {
					m.put(name, text, 0o644)
				}
			}
			if got := bootLoop(m.Target); len(got) > 0 != c.want {
				t.Errorf("%q", got)
			}
		})
	}
}

func TestNftBlocks(t *testing.T) {
	const drop = "table inet filter {\n chain input {\n  type filter hook input priority 0; policy drop;\n  ct state established accept\n%s }\n chain output {\n  type filter hook output priority filter; policy %s;\n%s }\n}\n"
	for _, c := range []struct {
		name, text    string
		sshIn, ntpOut bool // blocked
	}{
		{"nothing", "", false, false},
		{"Debian's own", "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter;\n\t}\n}\n", false, false},
		{"no rule", fmt.Sprintf(drop, "", "accept", ""), true, false},
		{"a comment", fmt.Sprintf(drop, "# tcp dport 22 accept\n", "accept", ""), true, false},
		{"a port", fmt.Sprintf(drop, "tcp dport 22 accept\n", "drop", ""), false, true},
		{"a name", fmt.Sprintf(drop, "tcp dport ssh ct state new accept\n", "drop", "udp dport ntp accept\n"), false, false},
		{"a set", fmt.Sprintf(drop, "tcp dport { 80, 20-25 } accept\n", "drop", "udp dport {53,123} accept\n"), false, false},
		{"another port", fmt.Sprintf(drop, "tcp dport { 80, 443 } accept\n", "drop", "udp dport 53 accept\n"), true, true},
		{"dropped", fmt.Sprintf(drop, "tcp dport 22 drop\n", "accept", ""), true, false},
		{"a named set", fmt.Sprintf(drop, "tcp dport @mine accept\n", "accept", ""), false, false},
	} {
		if got := nftBlocks(c.text, sshIn) != ""; got != c.sshIn {
			t.Errorf("%s: SSH blocked: %v", c.name, got)
		}
		if got := nftBlocks(c.text, ntpOut) != ""; got != c.ntpOut {
			t.Errorf("%s: NTP blocked: %v", c.name, got)
		}
	}
}

func FuzzNftBlocks(f *testing.F) {
	f.Add("chain input { type filter hook input priority 0; policy drop; tcp dport { 22, ssh } accept }")
	f.Fuzz(func(t *testing.T, text string) { nftBlocks(text, sshIn) })
}

// The administrator's own rules are reported, and not touched.
func TestNftables(t *testing.T) {
	m := newMachine(t)
	const own = "table inet filter {\n chain input {\n  type filter hook input priority 0; policy drop;\n }\n}\n"
	m.put(target.NftablesConf, own, 0o644)
	m.put("/etc/systemd/system/sysinit.target.wants/nftables.service", "", 0o644)
	m.bake()
	if m.read(target.NftablesConf) != own {
		t.Error("touched")
	}
	findings, err := Check(t.Context(), m.Target)
	m.must(err)
	if len(findings) != 1 || findings[0].Path != target.NftablesConf || findings[0].Severity != Warning {
		t.Errorf("%+v", findings)
	}
}

func FuzzFirewalldList(f *testing.F) {
	f.Add([]byte("public (active)\n  services: ssh dhcpv6-client\n  ports: 2222/tcp 1-100/udp\n  rich rules:\n\trule family=\"ipv4\" service name=\"ntp\" accept\n"))
	f.Add([]byte("  : \n:\n  ports: -/tcp 99999999999999999999/tcp\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		l := parseFirewalldList(out)
		for _, n := range []need{{proto: "tcp", port: 22}, ntpOut, {proto: "tcp", port: 65535}} {
			if l.allows(n) && !bytes.Contains(out, []byte("ssh")) && !bytes.Contains(out, []byte("ntp")) && !bytes.ContainsAny(out, "0123456789") {
				t.Errorf("%v is allowed by %q", n, out)
			}
		}
	})
}
