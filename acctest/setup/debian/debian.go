// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package debian sees to it that the Debian packages are there that the tests,
// the virtual machine and the demo need.
//
// It installs with apt-get, as root, what is missing and nothing else, and says
// what that is before it does. It removes and upgrades nothing of its own
// accord. On another system, or without root, it installs nothing and says
// what is missing.
package debian

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Purpose is what the packages are for.
type Purpose string

// The purposes. Each needs what the one before it needs.
const (
	Test    Purpose = "test"    // make test: unit tests, the rootfs lab and the boot lab
	Demo    Purpose = "demo"    // make demo: the virtual machine as well
	TestAcc Purpose = "testacc" // make testacc, and all else that CI does
)

// Purposes returns all of them.
func Purposes() []Purpose { return []Purpose{Test, Demo, TestAcc} }

// Sentinel errors; they arrive wrapped, with names.
var (
	ErrPurpose = errors.New("no such purpose")
	ErrMissing = errors.New("packages are missing, and cannot be installed here")
)

// pkg is a package, and a program of it for systems that name packages
// otherwise.
type pkg struct{ name, program string }

// anyOrigin are the packages whose program does, wherever it comes from.
// Packages of Node.js from elsewhere hold npm as well, and cannot be beside
// Debian's.
var anyOrigin = []string{"chromium", "nodejs", "npm"}

var forTest = []pkg{
	{"age", "age"},                          // opens envelopes
	{"chromium", "chromium"},                // opens them as owners do
	{"gcc", "gcc"},                          // the race detector
	{"libc6-dev", ""},                       // likewise
	{"iproute2", "ip"},                      // routes of the boot lab
	{"mmdebstrap", "mmdebstrap"},            // makes root filesystems
	{"nodejs", "node"},                      // runs the page's script
	{"openssh-client", "ssh"},               // logs in
	{"putty-tools", "plink"},                // likewise
	{"pycodestyle", "pycodestyle"},          // looks at cloud-init's module
	{"pyflakes3", "pyflakes3"},              // likewise
	{"debian-archive-keyring", ""},          // mmdebstrap checks signatures with it
	{"rsync", "rsync"},                      // is let in by an exemption
	{"shellcheck", "shellcheck"},            // make lint
	{"systemd-container", "systemd-nspawn"}, // boots machines of the boot lab
	{"util-linux", "nsenter"},               // the rootfs lab's namespaces
	{"xorriso", "xorriso"},                  // reads seed CDs, and makes those of the virtual machine
	{"zbar-tools", "zbarimg"},               // reads QR codes
}

var forVM = []pkg{
	{"e2fsprogs", "mkfs.ext4"}, // makes the image's file system
	{"qemu-system-x86", "qemu-system-x86_64"},
	{"qemu-utils", "qemu-img"},
}

var forCI = []pkg{
	{"npm", "npm"}, // make generate-check: builds the page anew
}

// Packages returns the names of what a purpose needs, sorted.
func Packages(p Purpose) ([]string, error) {
	pkgs, err := needed(p)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, pkg := range pkgs {
		names = append(names, pkg.name)
	}
	slices.Sort(names)
	return names, nil
}

// Ensure makes sure that a purpose's packages are installed, telling log what it
// does. The error wraps [ErrMissing] where something is missing and this is no
// Debian system or not root; it names what.
func Ensure(ctx context.Context, p Purpose, log io.Writer) error {
	pkgs, err := needed(p)
	if err != nil {
		return err
	}
	if !isDebian() {
		return missingPrograms(pkgs)
	}
	names, err := missing(ctx, pkgs)
	if err != nil || len(names) == 0 {
		return err
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: %s; run as root: apt-get install %s", ErrMissing, strings.Join(names, ", "), strings.Join(names, " "))
	}
	fmt.Fprintf(log, "installing Debian packages for %s: %s\n", p, strings.Join(names, " "))
	start := time.Now()
	if err := apt(ctx, "update"); err != nil {
		return err
	}
	if err := apt(ctx, append([]string{"install", "--yes", "--no-install-recommends"}, names...)...); err != nil {
		return err
	}
	fmt.Fprintf(log, "installed in %s\n", time.Since(start).Round(time.Second))
	return nil
}

func needed(p Purpose) ([]pkg, error) {
	switch p {
	case Test:
		return forTest, nil
	case Demo:
		return slices.Concat(forTest, forVM), nil
	case TestAcc:
		return slices.Concat(forTest, forVM, forCI), nil
	}
	return nil, fmt.Errorf("%w: %q; use test, demo or testacc", ErrPurpose, p)
}

// missing asks dpkg, which knows of a package that is removed but configured.
func missing(ctx context.Context, pkgs []pkg) ([]string, error) {
	args := []string{"--show", "--showformat=${Package} ${db:Status-Status}\n"}
	for _, p := range pkgs {
		args = append(args, p.name)
	}
	cmd := exec.CommandContext(ctx, "dpkg-query", args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) { // exit 1: it does not know all of them
		return nil, err
	}
	return notInstalled(pkgs, string(out)), nil
}

// notInstalled returns the names that dpkg-query's answer does not call
// installed, and whose program is not there from elsewhere, sorted.
func notInstalled(pkgs []pkg, answer string) []string {
	lines := strings.Split(answer, "\n")
	var names []string
	for _, p := range pkgs {
		if slices.Contains(lines, p.name+" installed") {
			continue
		}
		if slices.Contains(anyOrigin, p.name) {
			if _, err := exec.LookPath(p.program); err == nil {
				continue
			}
		}
		names = append(names, p.name)
	}
	slices.Sort(names)
	return names
}

func missingPrograms(pkgs []pkg) error {
	var names []string
	for _, p := range pkgs {
		if p.program == "" {
			continue
		}
		if _, err := exec.LookPath(p.program); err != nil {
			names = append(names, p.program)
		}
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return fmt.Errorf("%w: %s; this is no Debian system, install them by hand", ErrMissing, strings.Join(names, ", "))
}

// isDebian reports whether this is Debian or a child of it.
func isDebian() bool {
	if _, err := os.Stat("/etc/debian_version"); err != nil {
		return false
	}
	_, err := exec.LookPath("apt-get")
	return err == nil
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"--quiet", "--option", "DPkg::Lock::Timeout=300"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	if err != nil {
		text := strings.TrimSpace(string(out))
		if len(text) > 2000 {
			text = "…" + text[len(text)-2000:]
		}
		return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, text)
	}
	return nil
}
