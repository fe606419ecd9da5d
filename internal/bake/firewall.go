// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A need is traffic that a login with a code does not go without.
type need struct {
	proto string
	port  int
	out   bool
}

// ntpOut is what keeps the clock right.
var ntpOut = need{"udp", 123, true}

func (n need) String() string {
	if n.out {
		return fmt.Sprintf("%d/%s out", n.port, n.proto)
	}
	return fmt.Sprintf("%d/%s in", n.port, n.proto)
}

// A firewall is a program that keeps rules. Each reads and changes them in its
// own way; there is no row for what the machine does not have.
type firewall interface {
	name() string
	// active tells whether the rules hold, or will when the machine starts.
	active(ctx context.Context, t *target.Target) bool
	// lacks are the needs that no rule allows, and denied what keeps others from
	// being met that is the administrator's: a rule that forbids one, a unit.
	lacks(ctx context.Context, t *target.Target, needs []need) (missing []need, denied []string, err error)
	// allow adds a rule for each of the needs that lacks has found missing, by the
	// program's own command. The journal can take it back.
	allow(ctx context.Context, b *baker, needs []need) error
}

// firewalls are those of one machine at one time: they remember what they have read.
func firewalls() []firewall { return []firewall{ufw{}, &firewalld{}} }

// ErrFirewall says that a firewall could not be told to let SSH in.
var ErrFirewall = errors.New("the firewall did not take the rule")

// firewall lets SSH in and NTP out where a firewall is active. Where none is,
// nothing is touched.
func (b *baker) firewall(ctx context.Context) (string, error) {
	if b.facts.policy.Firewall == policy.FirewallNone {
		return "left alone, as the policy says", nil
	}
	var said []string
	var needs []need
	for _, f := range firewalls() {
		if !f.active(ctx, b.t) {
			continue
		}
		if needs == nil {
			var err error
			if needs, err = loginNeeds(ctx, b.t); err != nil {
				return "", err
			}
		}
		missing, denied, err := f.lacks(ctx, b.t, needs)
		if err != nil {
			return "", fmt.Errorf("%s: %w", f.name(), err)
		}
		report := ReportFirewall{Name: f.name(), Allowed: []string{}, Denied: append([]string{}, denied...)}
		for _, n := range missing {
			report.Allowed = append(report.Allowed, n.String())
		}
		b.firewalls = append(b.firewalls, report)
		if len(missing) > 0 {
			if err := f.allow(ctx, b, missing); err != nil {
				return "", fmt.Errorf("%s: %w: %w; set firewall to %q to do it yourself", f.name(), ErrFirewall, err, policy.FirewallNone)
			}
			said = append(said, fmt.Sprintf("%s lets %s through now", f.name(), list(missing)))
		} else {
			said = append(said, f.name()+" has the rules already")
		}
		if len(denied) > 0 {
			said = append(said, fmt.Sprintf("%s: left as it is: %s", f.name(), strings.Join(denied, "; ")))
		}
	}
	if len(said) == 0 {
		return "none is active", nil
	}
	return strings.Join(said, "; "), nil
}

func list(needs []need) string {
	var s []string
	for _, n := range needs {
		s = append(s, n.String())
	}
	return strings.Join(s, ", ")
}

// loginNeeds are the ports that sshd listens on, and time.
func loginNeeds(ctx context.Context, t *target.Target) (_ []need, err error) {
	s, err := openSSHD(ctx, t)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	ports, err := s.ports(ctx)
	if err != nil {
		return nil, err
	}
	var needs []need
	for _, p := range ports {
		needs = append(needs, need{proto: "tcp", port: p})
	}
	return append(needs, ntpOut), nil
}

// ports asks sshd where it listens, the loopback aside.
func (s *sshd) ports(ctx context.Context) ([]int, error) {
	out, _, err := s.ask(ctx, "-T", "-C", "user="+nobody+",host=client.invalid,addr=192.0.2.1,laddr=192.0.2.2,lport=22")
	if err != nil {
		return nil, err
	}
	return listenPorts(string(out)), nil
}

func listenPorts(effective string) []int {
	var ports []int
	for line := range strings.Lines(effective) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), "listenaddress ")
		if !ok || strings.HasPrefix(value, "127.") || strings.HasPrefix(value, "[::1]") {
			continue
		}
		p, err := strconv.Atoi(value[strings.LastIndex(value, ":")+1:])
		if err == nil && !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	if ports == nil {
		ports = []int{22}
	}
	slices.Sort(ports)
	return ports
}

// keepTree remembers every file under a directory with its content, so that undo
// puts them back and removes those that came. It is for what a command writes,
// which may write into the same file.
func (j *journal) keepTree(dir string) error {
	type kept struct {
		fs.FileInfo
		text []byte
	}
	before := map[string]kept{}
	files, err := tree(j.t, dir)
	if err != nil {
		return err
	}
	for _, name := range files {
		fi, err := j.t.Lstat(name)
		if err != nil {
			return err
		}
		text, err := j.t.ReadFile(name)
		if err != nil {
			return err
		}
		before[name] = kept{fi, text}
	}
	j.undos = append(j.undos, func() error {
		now, err := tree(j.t, dir)
		errs := []error{err}
		for _, name := range now {
			if _, ok := before[name]; !ok {
				errs = append(errs, missingIsFine(j.t.Remove(name)))
			}
		}
		for name, k := range before {
			if text, err := j.t.ReadFile(name); err == nil && bytes.Equal(text, k.text) {
				continue
			}
			errs = append(errs, j.t.WriteFile(name, k.text, k.Mode().Perm()), j.t.Chtimes(name, k.ModTime()))
			if uid, gid, ok := target.Owner(k.FileInfo); ok {
				errs = append(errs, j.t.Lchown(name, uid, gid))
			}
		}
		return errors.Join(errs...)
	})
	return nil
}

// tree are the regular files below a directory, none where it is missing.
func tree(t *target.Target, dir string) ([]string, error) {
	entries, err := t.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		p := path.Join(dir, e.Name())
		switch {
		case e.IsDir():
			below, err := tree(t, p)
			if err != nil {
				return nil, err
			}
			files = append(files, below...)
		case e.Type().IsRegular():
			files = append(files, p)
		}
	}
	return files, nil
}

// firewalls looks at whether SSH and time get through. Where sshd cannot say
// where it listens, that is reported already.
func (c *checker) firewalls(ctx context.Context) {
	if c.facts.policy.Firewall == policy.FirewallNone {
		return
	}
	active := slices.DeleteFunc(firewalls(), func(f firewall) bool { return !f.active(ctx, c.t) })
	own := len(active) == 0 && enabled(c.t, nftablesUnit)
	if len(active) == 0 && !own {
		return
	}
	needs, err := loginNeeds(ctx, c.t)
	if err != nil {
		return
	}
	for _, f := range active {
		missing, denied, err := f.lacks(ctx, c.t, needs)
		if err != nil {
			c.add(Warning, "firewall", f.name(), "cannot be asked: "+err.Error(), "look at its rules yourself")
			continue
		}
		for _, n := range missing {
			c.add(Warning, "firewall", f.name(), "has no rule that lets "+n.String()+" through", bakeAgain)
		}
		for _, d := range denied {
			c.add(Warning, "firewall", f.name(), d, "remove that, unless you mean it")
		}
	}
	if !own {
		return
	}
	// The rules are the administrator's own: they are looked at, never changed.
	text, err := c.t.ReadFile(target.NftablesConf)
	if err != nil {
		return
	}
	for _, n := range needs {
		if what := nftBlocks(string(text), n); what != "" {
			c.add(Warning, "firewall", target.NftablesConf, what, "allow it there, unless another rule does")
		}
	}
}
