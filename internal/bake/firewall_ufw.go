// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// ufw is the Uncomplicated Firewall, ufw(8).
//
// Its command writes rules to files, and where the firewall is enabled to the
// running kernel at once, which in a build's chroot is another machine's. So it
// works on a copy of its files in which the firewall is disabled, and the files
// with the rules are taken from there; a running machine then loads them.
type ufw struct{}

func (ufw) name() string { return "ufw" }

const (
	ufwConf  = target.UFWDir + "/ufw.conf"
	ufwRules = target.UFWDir + "/user.rules"
)

// ufwRuleFiles are what a rule is written to: for IPv4 and IPv6.
var ufwRuleFiles = []string{ufwRules, target.UFWDir + "/user6.rules"}

func (ufw) active(_ context.Context, t *target.Target) bool {
	text, err := t.ReadFile(ufwConf)
	return err == nil && t.IsRegular(target.UFW) && ufwEnabled.has(text)
}

// ufwSetting is a setting of ufw.conf, which is read as a shell reads it.
type ufwSetting struct{ key, value string }

var ufwEnabled = ufwSetting{"ENABLED", "yes"}

func (s ufwSetting) has(text []byte) bool {
	found := ""
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		if key, value, ok := strings.Cut(strings.TrimSpace(sc.Text()), "="); ok && key == s.key {
			found = strings.ToLower(strings.Trim(strings.TrimSpace(value), `"'`))
		}
	}
	return found == s.value
}

// A ufwTuple is a rule as ufw itself remembers it: a comment in the rules' file,
// "### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in".
type ufwTuple struct{ action, proto, ports, direction, text string }

const ufwMark = "### tuple ### "

func ufwTuples(text []byte) []ufwTuple {
	var ts []ufwTuple
	for sc := bufio.NewScanner(bytes.NewReader(text)); sc.Scan(); {
		rest, ok := strings.CutPrefix(sc.Text(), ufwMark)
		f := strings.Fields(rest)
		if !ok || len(f) < 7 || strings.HasPrefix(f[0], "route:") {
			continue
		}
		// A comment of the administrator's own comes last.
		if i := slices.IndexFunc(f, func(s string) bool { return strings.HasPrefix(s, "comment=") }); i > 0 {
			f = f[:i]
		}
		direction, _, _ := strings.Cut(f[len(f)-1], "_") // in_eth0
		action, _, _ := strings.Cut(f[0], "_")           // allow_log
		ts = append(ts, ufwTuple{action, f[1], f[2], direction, rest})
	}
	return ts
}

// about tells whether the rule is about what is needed.
func (u ufwTuple) about(n need) bool {
	return (u.direction == "out") == n.out && (u.proto == n.proto || u.proto == "any") &&
		(u.ports == "any" || slices.ContainsFunc(strings.Split(u.ports, ","), func(p string) bool { return portRange(p, ":", n.port) }))
}

func (ufw) lacks(_ context.Context, t *target.Target, needs []need) (missing []need, denied []string, err error) {
	var rules []ufwTuple
	for _, name := range ufwRuleFiles {
		text, err := t.ReadFile(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, err
		}
		rules = append(rules, ufwTuples(text)...)
	}
	for _, n := range needs {
		// The first rule that fits wins. One that is for some addresses only
		// is the administrator's decision as well: nothing is opened beside it.
		i := slices.IndexFunc(rules, func(u ufwTuple) bool { return u.about(n) })
		switch {
		case i < 0:
			missing = append(missing, n)
		case rules[i].action != "allow" && rules[i].action != "limit":
			denied = append(denied, fmt.Sprintf("the rule %q forbids %s", rules[i].text, n))
		}
	}
	return missing, denied, nil
}

func (ufw) allow(ctx context.Context, b *baker, needs []need) (err error) {
	const scratch = target.RunDir + "/ufw"
	made := !b.t.Exists(target.RunDir)
	if err := b.t.Mkdir(target.RunDir, 0o755); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, b.t.RemoveAll(scratch))
		if made {
			err = errors.Join(err, missingIsFine(b.t.Remove(target.RunDir)))
		}
	}()
	if err := ufwCopy(b.t, scratch); err != nil {
		return err
	}
	for _, n := range needs {
		direction := "in"
		if n.out {
			direction = "out"
		}
		if _, err := b.t.Run(ctx, target.UFW, "--datadir="+scratch, "allow", direction, fmt.Sprintf("%d/%s", n.port, n.proto)); err != nil {
			return err
		}
	}
	reload := func(ctx context.Context) error {
		if !b.t.Booted() {
			return nil
		}
		_, err := b.t.Run(ctx, target.UFW, "reload")
		return err
	}
	// Undone last, when the files are back.
	b.journal.undos = append(b.journal.undos, func() error { return reload(context.WithoutCancel(ctx)) })
	for _, name := range ufwRuleFiles {
		text, err := b.t.ReadFile(scratch + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		fi, err := b.t.Lstat(name)
		if err != nil {
			return err
		}
		if _, err := b.journal.write(name, text, fi.Mode().Perm()); err != nil {
			return err
		}
	}
	return reload(ctx)
}

// ufwCopy copies ufw's files to where --datadir looks for them, with the
// firewall disabled.
func ufwCopy(t *target.Target, to string) error {
	if err := t.Mkdir(to, 0o700); err != nil {
		return err
	}
	files := []string{target.UFWDefaults}
	// In the second one it locks, and the ufw of Debian 11 looks for a program.
	for _, dir := range []string{target.UFWDir, "/lib/ufw"} {
		below, err := tree(t, dir)
		if err != nil {
			return err
		}
		files = append(files, below...)
	}
	if err := t.Mkdir(to+"/lib/ufw", 0o700); err != nil {
		return err
	}
	for _, name := range files {
		text, err := t.ReadFile(name)
		if err != nil {
			return err
		}
		if name == ufwConf {
			text = append(text, "\nENABLED=no\n"...)
		}
		if err := t.Mkdir(path.Dir(to+name), 0o700); err != nil {
			return err
		}
		if err := t.WriteFile(to+name, text, 0o700); err != nil {
			return err
		}
	}
	return nil
}
