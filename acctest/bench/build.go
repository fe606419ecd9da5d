// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/packer"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// What a build may cost besides the package manager: in all, and more than the
// manual guide's steps.
const (
	maxProvision  = time.Second
	maxDifference = 2 * time.Second
	buildRuns     = 5
)

// buildTemplate is a build over SSH on the loopback.
const buildTemplate = `packer {
  required_plugins {
    totp = {
      source  = "github.com/packer-plugin-totp/totp"
      version = ">= 0.1.0"
    }
  }
}
source "null" "guest" {
  ssh_host             = %q
  ssh_port             = %d
  ssh_username         = "root"
  ssh_private_key_file = %q
}
build {
  sources = ["source.null.guest"]
%s}
`

// A build is what is measured: the provisioner's block, and where it says how
// many milliseconds the package manager took.
type build struct {
	name, block string
	apt         *regexp.Regexp
}

// guide are the steps of the manual guide as people put them into a template.
const guide = `set -eu
start=$(date +%s%N)
apt-get -q -y update
DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends libpam-google-authenticator
echo "apt took $((($(date +%s%N) - start) / 1000000)) ms"
sed -i 's/^#*\(ChallengeResponse\|KbdInteractive\)Authentication .*/\1Authentication yes/' /etc/ssh/sshd_config
sed -i 's/^#*PasswordAuthentication .*/PasswordAuthentication no/' /etc/ssh/sshd_config
sed -i '$aAuthenticationMethods publickey,keyboard-interactive' /etc/ssh/sshd_config
`

func builds(script string) (nothing, manual, ours build) {
	shell := func(line string) string { return fmt.Sprintf("  provisioner \"shell\" {\n%s\n  }\n", line) }
	return build{name: "nothing", block: shell(`    inline = ["true"]`)},
		build{"the manual guide's steps", shell(fmt.Sprintf("    script = %q", script)), regexp.MustCompile(`apt took (\d+) ms`)},
		build{"totp, without self-test", "  provisioner \"totp\" {\n    issuer = \"Example Hosting\"\n    skip_selftest = true\n  }\n",
			regexp.MustCompile(`bake: packages: installed .*\((\d+) ms\)`)}
}

// took is one build's time.
type took struct{ all, apt time.Duration }

func (t took) besides() time.Duration { return t.all - t.apt }

// printBuilds measures whole builds with Packer's null source, in turn so that
// what else the machine does hits all of them alike.
func printBuilds(ctx context.Context, dir string) error {
	l, err := newBuilder(ctx, dir)
	if err != nil {
		return err
	}
	defer l.root.Close()
	script := filepath.Join(dir, "guide.sh")
	if err := os.WriteFile(script, []byte(guide), 0o600); err != nil {
		return err
	}
	nothing, manual, ours := builds(script)
	kinds := []build{nothing, manual, ours}
	all := map[string][]took{}
	for run := range buildRuns + 1 {
		for _, b := range kinds {
			t, err := l.measure(ctx, b)
			if err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
			if run > 0 { // the first warms the page cache
				all[b.name] = append(all[b.name], t)
			}
		}
	}
	fmt.Printf("\n%-28s %12s %12s %12s %12s\n", "packer build, null source", "wall", "apt", "besides apt", "of that ours")
	besides := map[string]time.Duration{}
	for _, b := range kinds {
		wall := medianOf(all[b.name], func(t took) time.Duration { return t.all })
		apt := medianOf(all[b.name], func(t took) time.Duration { return t.apt })
		besides[b.name] = medianOf(all[b.name], took.besides)
		fmt.Printf("%-28s %12s %12s %12s %12s\n", b.name, round(wall), round(apt), round(besides[b.name]), round(besides[b.name]-besides[nothing.name]))
	}
	fmt.Printf("%-28s %12s %12s %12s\n", "more than by the guide", "", "", round(besides[ours.name]-besides[manual.name]))
	fmt.Printf("\nlimits: %s for provisioning besides apt (\"ours\": less a build that does nothing), %s more than by the guide\nmedians of %d runs each\n",
		maxProvision, maxDifference, buildRuns)
	if besides[ours.name]-besides[manual.name] > maxDifference {
		return errors.New("the build takes longer than its limit")
	}
	return nil
}

func round(d time.Duration) string { return d.Round(time.Millisecond).String() }

func medianOf(ts []took, of func(took) time.Duration) time.Duration {
	var v []time.Duration
	for _, t := range ts {
		v = append(v, of(t))
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// A builder has what builds are made with.
type builder struct {
	dir    string
	root   *rootfs.Root // as a build finds it
	key    *login.Key
	packer *packer.Packer
}

func newBuilder(ctx context.Context, dir string) (*builder, error) {
	cache, err := rootfs.CacheDir()
	if err != nil {
		return nil, err
	}
	l := &builder{dir: dir}
	// The agents are those that make has left.
	plugin := filepath.Join(dir, "packer-plugin-totp")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "embed_agent", "-ldflags", "-s -w", "-o", plugin, ".")
	cmd.Dir, cmd.Env = filepath.Dir(cache), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	if l.packer, err = packer.Find(ctx, filepath.Dir(cache), cache, filepath.Join(dir, "packer"), os.Stderr); err != nil {
		return nil, err
	}
	if err := l.packer.Install(ctx, plugin, packer.Source); err != nil {
		return nil, err
	}
	if l.key, err = login.NewKey(dir, "build_key"); err != nil {
		return nil, err
	}
	if l.root, err = rootfs.New(ctx, rootfs.Options{Log: os.Stderr}); err != nil {
		return nil, err
	}
	return l, l.root.AddUser(ctx, rootfs.User{Name: "root", Keys: []string{l.key.Public}})
}

// measure runs one build in a fresh copy of the root.
func (l *builder) measure(ctx context.Context, b build) (took, error) {
	root, err := l.root.Clone()
	if err != nil {
		return took{}, err
	}
	defer root.Close()
	sshd, err := root.StartSSHD(ctx)
	if err != nil {
		return took{}, err
	}
	file := filepath.Join(l.dir, "build.pkr.hcl")
	if err := os.WriteFile(file, fmt.Appendf(nil, buildTemplate, sshd.Host, sshd.Port, l.key.File, b.block), 0o600); err != nil {
		return took{}, err
	}
	var out strings.Builder
	start := time.Now()
	err = l.packer.Run(ctx, l.dir, &out, "build", "-color=false", file)
	t := took{all: time.Since(start)}
	if err != nil {
		return took{}, err
	}
	if b.apt != nil {
		m := b.apt.FindStringSubmatch(out.String())
		if m == nil {
			return took{}, fmt.Errorf("it does not say how long apt took\n%s", out.String())
		}
		ms, _ := strconv.Atoi(m[1])
		t.apt = time.Duration(ms) * time.Millisecond
	}
	return t, sshd.Stop()
}
