// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// firewalld is looked at and changed by firewall-cmd(1) where it runs, and else by
// firewall-offline-cmd(1), which takes the same options. What comes in is the
// default zone's matter; what goes out is let through unless a policy for the host
// drops it, firewalld.policies(5). Each command is a Python of its own, which takes
// its time, so that nothing is asked twice.
type firewalld struct {
	runs   bool // it answers
	places firewalldPlaces
}

const firewalldUnit = "firewalld.service"

func (*firewalld) name() string { return "firewalld" }

func (f *firewalld) active(ctx context.Context, t *target.Target) bool {
	if !t.IsRegular(target.FirewallOfflineCmd) {
		return false
	}
	if t.Booted() && t.IsRegular(target.FirewallCmd) {
		_, err := t.Run(ctx, target.FirewallCmd, "--state")
		f.runs = err == nil
	}
	return f.runs || enabled(t, firewalldUnit)
}

// ask asks for the permanent configuration, or changes it.
func (f *firewalld) ask(ctx context.Context, t *target.Target, args ...string) ([]byte, error) {
	argv := []string{target.FirewallOfflineCmd}
	if f.runs {
		argv = []string{target.FirewallCmd}
		if !slices.Contains(args, "--get-default-zone") { // there is one only
			argv = append(argv, "--permanent")
		}
	}
	return t.Run(ctx, append(argv, args...)...)
}

// A firewalldList is what --list-all prints of a zone or a policy: "  services: ssh".
type firewalldList map[string]string

func parseFirewalldList(out []byte) firewalldList {
	l, last := firewalldList{}, ""
	for line := range strings.Lines(string(out)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if ok && strings.HasPrefix(line, "  ") && !strings.HasPrefix(strings.TrimSpace(line), "rule ") {
			last = key
			l[key] = strings.TrimSpace(value)
		} else if last != "" {
			l[last] += "\n" + strings.TrimSpace(line) // a rich rule
		}
	}
	return l
}

// firewalldServices are the services that come with firewalld.
var firewalldServices = map[need]string{{proto: "tcp", port: 22}: "ssh", ntpOut: "ntp"}

// allows tells whether a rule is about what is needed. A rich rule may be for some
// addresses only: then that is the administrator's decision.
func (l firewalldList) allows(n need) bool {
	service := firewalldServices[n]
	if service != "" && (slices.Contains(strings.Fields(l["services"]), service) || strings.Contains(l["rich rules"], fmt.Sprintf("service name=%q", service))) {
		return true
	}
	return strings.Contains(l["rich rules"], fmt.Sprintf("port=%q", fmt.Sprint(n.port))) ||
		slices.ContainsFunc(strings.Fields(l["ports"]), func(p string) bool {
			ports, proto, _ := strings.Cut(p, "/")
			return proto == n.proto && portRange(ports, "-", n.port)
		})
}

func (f *firewalld) lacks(ctx context.Context, t *target.Target, needs []need) (missing []need, denied []string, err error) {
	if err := f.read(ctx, t); err != nil {
		return nil, nil, err
	}
	for _, n := range needs {
		if len(f.places.lacking(n)) > 0 {
			missing = append(missing, n)
		}
	}
	return missing, bootLoop(t), nil
}

// bootLoop tells whether firewalld and cloud-init wait for each other at boot, as
// Debian's units of both do: firewalld is before network-pre.target and after
// sysinit.target, and cloud-init is the other way round. systemd drops a job to get
// on, which can be firewalld's, or the one that makes the users. A drop-in
// cannot take an order back.
func bootLoop(t *target.Target) []string {
	before := func(unit, which string) (string, bool) {
		file, _ := unitFile(t, unit)
		text, err := t.ReadFile(file)
		return file, err == nil && strings.Contains(string(text), "\nBefore="+which)
	}
	file, ours := before(firewalldUnit, "network-pre.target")
	if _, theirs := before("cloud-init.service", "sysinit.target"); !ours || !theirs {
		return nil
	}
	return []string{"Before=network-pre.target in " + file + " waits for cloud-init, which waits for it: systemd drops one of them at boot"}
}

// A firewalldPlace is a zone or a policy, by the option that names it.
type firewalldPlace struct {
	option string
	out    bool
	list   firewalldList
}

type firewalldPlaces []firewalldPlace

// lacking are the places that would drop what is needed.
func (ps firewalldPlaces) lacking(n need) []firewalldPlace {
	var lacking []firewalldPlace
	for _, p := range ps {
		if p.out == n.out && !p.list.allows(n) {
			lacking = append(lacking, p)
		}
	}
	return lacking
}

// read reads the default zone, and the policies that drop what the host sends.
func (f *firewalld) read(ctx context.Context, t *target.Target) error {
	out, err := f.ask(ctx, t, "--get-default-zone")
	if err != nil {
		return err
	}
	option := "--zone=" + strings.TrimSpace(string(out))
	if out, err = f.ask(ctx, t, option, "--list-all"); err != nil {
		return err
	}
	f.places = nil
	if zone := parseFirewalldList(out); zone["target"] != "ACCEPT" {
		f.places = append(f.places, firewalldPlace{option: option, list: zone})
	}
	// There were no policies before firewalld 0.9.
	out, _ = f.ask(ctx, t, "--list-all-policies")
	f.places = append(f.places, parseFirewalldPolicies(out)...)
	return nil
}

// parseFirewalldPolicies finds the policies that drop what the host sends. A line
// that is not indented begins with the name of one.
func parseFirewalldPolicies(out []byte) (ps firewalldPlaces) {
	var name, text string
	end := func() {
		policy := parseFirewalldList([]byte(text))
		if slices.Contains(strings.Fields(policy["ingress-zones"]), "HOST") && (policy["target"] == "DROP" || policy["target"] == "REJECT") {
			ps = append(ps, firewalldPlace{option: "--policy=" + name, out: true, list: policy})
		}
	}
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == "" {
			continue
		}
		if !strings.HasPrefix(line, " ") && !strings.HasPrefix(line, "\t") {
			end()
			name, text = strings.Fields(line)[0], ""
			continue
		}
		text += line
	}
	end()
	return ps
}

func (f *firewalld) allow(ctx context.Context, b *baker, needs []need) error {
	reload := func(ctx context.Context) error {
		if !f.runs {
			return nil
		}
		_, err := b.t.Run(ctx, target.FirewallCmd, "--reload")
		return err
	}
	// Undone last, when the files are back.
	b.journal.undos = append(b.journal.undos, func() error { return reload(context.WithoutCancel(ctx)) })
	if err := b.journal.keepTree(target.FirewalldDir); err != nil {
		return err
	}
	for _, n := range needs {
		add := fmt.Sprintf("--add-port=%d/%s", n.port, n.proto)
		if service := firewalldServices[n]; service != "" {
			add = "--add-service=" + service
		}
		for _, p := range f.places.lacking(n) {
			if _, err := f.ask(ctx, b.t, p.option, add); err != nil {
				return err
			}
		}
	}
	return reload(ctx)
}
