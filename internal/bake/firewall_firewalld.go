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
// drops it, firewalld.policies(5).
type firewalld struct{}

const firewalldUnit = "firewalld.service"

func (firewalld) name() string { return "firewalld" }

func (firewalld) active(ctx context.Context, t *target.Target) bool {
	return t.IsRegular(target.FirewallOfflineCmd) && (enabled(t, firewalldUnit) || firewalldRuns(ctx, t))
}

func firewalldRuns(ctx context.Context, t *target.Target) bool {
	if !t.Booted() || !t.IsRegular(target.FirewallCmd) {
		return false
	}
	_, err := t.Run(ctx, target.FirewallCmd, "--state")
	return err == nil
}

// firewalldCommand is what answers for the permanent configuration.
func firewalldCommand(ctx context.Context, t *target.Target) func(args ...string) ([]byte, error) {
	argv := []string{target.FirewallOfflineCmd}
	if firewalldRuns(ctx, t) {
		argv = []string{target.FirewallCmd, "--permanent"}
	}
	return func(args ...string) ([]byte, error) {
		argv := argv
		if slices.Contains(args, "--get-default-zone") {
			argv = argv[:1] // there is one only
		}
		return t.Run(ctx, append(slices.Clip(argv), args...)...)
	}
}

// A firewalldList is what --list-all and --info-policy print: "  services: ssh".
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

func (f firewalld) lacks(ctx context.Context, t *target.Target, needs []need) (missing []need, denied []string, err error) {
	_, lists, err := f.lists(ctx, t)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range needs {
		if len(lists.lacking(n)) > 0 {
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

// lists are the default zone, and the policies that drop what the host sends.
func (firewalld) lists(ctx context.Context, t *target.Target) (run func(...string) ([]byte, error), ps firewalldPlaces, err error) {
	run = firewalldCommand(ctx, t)
	out, err := run("--get-default-zone")
	if err != nil {
		return nil, nil, err
	}
	option := "--zone=" + strings.TrimSpace(string(out))
	if out, err = run(option, "--list-all"); err != nil {
		return nil, nil, err
	}
	if zone := parseFirewalldList(out); zone["target"] != "ACCEPT" {
		ps = append(ps, firewalldPlace{option: option, list: zone})
	}
	// There were no policies before firewalld 0.9.
	out, _ = run("--get-policies")
	for _, name := range strings.Fields(string(out)) {
		out, err := run("--info-policy=" + name)
		if err != nil {
			return nil, nil, err
		}
		policy := parseFirewalldList(out)
		if slices.Contains(strings.Fields(policy["ingress-zones"]), "HOST") && (policy["target"] == "DROP" || policy["target"] == "REJECT") {
			ps = append(ps, firewalldPlace{option: "--policy=" + name, out: true, list: policy})
		}
	}
	return run, ps, nil
}

func (f firewalld) allow(ctx context.Context, b *baker, needs []need) error {
	run, lists, err := f.lists(ctx, b.t)
	if err != nil {
		return err
	}
	reload := func(ctx context.Context) error {
		if !firewalldRuns(ctx, b.t) {
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
		for _, p := range lists.lacking(n) {
			if _, err := run(p.option, add); err != nil {
				return err
			}
		}
	}
	return reload(ctx)
}
