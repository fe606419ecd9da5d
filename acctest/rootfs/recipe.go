// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/once"
)

// Recipe says what a base holds. Bases are cached under a hash of it.
type Recipe struct {
	Name     string   // for people
	Suite    string   // Debian release, by its code name
	Include  []string // packages on top of apt's own
	Prefetch []string // packages whose files lie in apt's cache, installed or not

	// Newer are packages, in Include as well, that are taken from the release after
	// it, which is called From.
	Newer []string
	From  string

	// Place is where the base lies in the cache, for one that others make and use as
	// well; it has no Prefetch, and its manuals. Empty: under a hash of the recipe.
	Place string
}

// Debian11, Debian12 and Debian13 are servers as they are before bake: sshd,
// sudo, systemd's files. The PAM module, an NTP client, cloud-init, firewalls and
// ssh-audit are not installed; their packages lie in apt's cache, so that a root
// installs the real thing without waiting for a mirror.
var (
	Debian11 = debian("11", "bullseye")
	Debian12 = debian("12", "bookworm")
	Debian13 = debian("13", "trixie")
)

// Debians are the releases that are proven, oldest first.
var Debians = []Recipe{Debian11, Debian12, Debian13}

// CloudDebians are the releases as their cloud images have them, with cloud-init
// and the PAM module installed. .ci/run makes them as well, for internal/bake.
var CloudDebians = []Recipe{cloud("11", "bullseye"), cloud("12", "bookworm"), cloud("13", "trixie")}

// CloudTesting is Debian 13 with the cloud-init of Debian testing, the newest that
// there is of it: with the release that it is in, bake could not work yet.
var CloudTesting = Recipe{
	Name:    "Debian 13 with cloud-init of testing",
	Suite:   "trixie",
	Include: cloudPackages,
	Newer:   []string{"cloud-init"},
	From:    "forky",
}

var cloudPackages = []string{"systemd-sysv", "openssh-server", "cloud-init", "libpam-google-authenticator", "sudo"}

func cloud(version, suite string) Recipe {
	return Recipe{
		Name:    "Debian " + version + " with cloud-init",
		Suite:   suite,
		Include: cloudPackages,
		Place:   "bake-root-" + suite,
	}
}

func debian(version, suite string) Recipe {
	return Recipe{
		Name:     "Debian " + version,
		Suite:    suite,
		Include:  []string{"systemd-sysv", "openssh-server", "sudo", "passwd"},
		Prefetch: []string{"libpam-google-authenticator", "systemd-timesyncd", "openssh-server", "libpam-runtime", "cloud-init", "ufw", "firewalld", "nftables", "ssh-audit"},
	}
}

// recipeVersion is part of the cache key: raise it when Build changes.
const recipeVersion = "1"

// CacheDir returns the .cache directory at the top of the module that the
// working directory is in.
func CacheDir() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, ".cache"), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the working directory; run it inside the module")
		}
		dir = up
	}
}

// Build returns the base of a recipe as a directory under cache, making it where
// it is not there. Two programs that need the same base make it once.
func Build(ctx context.Context, r Recipe, cache string, log io.Writer) (string, error) {
	base := filepath.Join(cache, "rootfs", r.Suite+"-"+r.key())
	if r.Place != "" {
		base = filepath.Join(cache, r.Place)
	}
	return base, once.Make(base, "the "+r.Name+" root filesystem with mmdebstrap", "about a minute", log, func(part string) error {
		cmd := exec.CommandContext(ctx, "mmdebstrap", r.args(part)...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // it unmounts what it mounted
		cmd.WaitDelay = 20 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("mmdebstrap %s: %w\n%s", r.Suite, err, tail(string(out), 3000))
		}
		return nil
	})
}

func (r Recipe) key() string {
	h := sha256.New()
	for _, arg := range r.args("") {
		io.WriteString(h, arg+"\x00")
	}
	io.WriteString(h, recipeVersion)
	return hex.EncodeToString(h.Sum(nil))[:12]
}

func (r Recipe) args(out string) []string {
	if r.Place != "" {
		return []string{"--mode=root", "--variant=apt", "--format=directory", "--dpkgopt=force-unsafe-io", "--include=" + strings.Join(r.Include, ","), r.Suite, out}
	}
	args := []string{
		"--mode=root", "--variant=apt", "--format=directory",
		"--include=" + strings.Join(r.Include, ","),
		// A root lives for seconds: it needs no manuals, and dpkg no fsync.
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=force-unsafe-io",
		"--aptopt=Acquire::Languages \"none\"",
		"--skip=cleanup/apt", // bake finds the package lists as on a server
		"--customize-hook=chroot \"$1\" apt-get clean",
	}
	if len(r.Prefetch) > 0 {
		// One by one, since not all of them can be on one system.
		args = append(args, "--customize-hook=for p in "+strings.Join(r.Prefetch, " ")+"; do chroot \"$1\" apt-get --yes --download-only --reinstall install $p || exit; done")
	}
	if r.From == "" {
		return append(args, r.Suite, out)
	}
	var pins strings.Builder
	fmt.Fprintf(&pins, "Package: *\\nPin: release n=%s\\nPin-Priority: 100\\n", r.From)
	for _, p := range r.Newer {
		fmt.Fprintf(&pins, "\\nPackage: %s\\nPin: release n=%s\\nPin-Priority: 990\\n", p, r.From)
	}
	args = append(args, `--setup-hook=mkdir -p "$1/etc/apt/preferences.d" && printf '`+pins.String()+`' >"$1/etc/apt/preferences.d/newer"`)
	// A mirror that lags behind has an index of testing that has run out: the
	// signature counts.
	return append(args, r.Suite, out,
		"deb http://deb.debian.org/debian "+r.Suite+" main", "deb [check-valid-until=no] http://deb.debian.org/debian "+r.From+" main")
}
