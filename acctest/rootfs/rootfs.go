// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrUnavailable is what [Available] and everything that starts something
// return, wrapped, on a machine that cannot run the lab.
var ErrUnavailable = errors.New("the rootfs lab cannot run here")

// Options say what root [New] makes.
type Options struct {
	Recipe Recipe    // what is in it; the zero value is [Debian12]
	Cache  string    // directory for bases; empty means [CacheDir]
	Log    io.Writer // progress, for a first run that takes a minute; nil discards it
}

// Root is a root filesystem with its namespaces. Its methods may be called from
// several goroutines.
type Root struct {
	base   string
	holder *holder
	log    *logCatcher
}

// Available returns nil where the lab can run, and otherwise an error that
// wraps [ErrUnavailable] and says what is missing.
func Available() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: needs root; run it with sudo", ErrUnavailable)
	}
	for _, name := range []string{"mmdebstrap", "unshare", "nsenter"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: %s is not installed; run: go run ./acctest/setup test", ErrUnavailable, name)
		}
	}
	out, err := exec.Command("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "true").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: no right to make namespaces: %s", ErrUnavailable, strings.TrimSpace(string(out)))
	}
	return nil
}

// New makes a fresh root and starts its namespaces. The first call of a recipe
// builds the base, which takes about a minute and needs a Debian mirror.
func New(ctx context.Context, o Options) (*Root, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	if o.Recipe.Suite == "" {
		o.Recipe = Debian12
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Cache == "" {
		dir, err := CacheDir()
		if err != nil {
			return nil, err
		}
		o.Cache = dir
	}
	base, err := Build(ctx, o.Recipe, o.Cache, o.Log)
	if err != nil {
		return nil, err
	}
	// The cache may be a link to that of another checkout. A name below
	// /proc/PID/root, as the root's are, must have no absolute link on its way.
	if base, err = filepath.EvalSymlinks(base); err != nil {
		return nil, err
	}
	r, err := open(base, "")
	if err != nil {
		return nil, err
	}
	if err := r.settle(); err != nil {
		_ = r.Close()
		return nil, err
	}
	return r, nil
}

// Clone returns a copy of the root as its files are now, machine-id included,
// with namespaces and processes of its own; none of the original's processes
// run in it.
func (r *Root) Clone() (*Root, error) { return open(r.base, r.holder.path("upper")) }

// Dir returns the root's directory as the host sees it, while the root lives.
// As on a disk that no machine runs from, /proc and /dev are bare there, and
// what is mounted in the root is not seen.
func (r *Root) Dir() string { return r.holder.path("view") }

// Path returns where the host finds the root's file of that absolute name. It
// does not follow the root's symbolic links.
func (r *Root) Path(name string) string { return filepath.Join(r.Dir(), filepath.FromSlash(name)) }

// Base returns the directory of the base the root was made from, for telling
// what was there before. It must not be written to.
func (r *Root) Base() string { return r.base }

// Command returns a command that runs in the root as its root user, with a
// small fixed environment and / as its working directory. When ctx ends the
// command's own process is killed; what it left running ends with the root.
func (r *Root) Command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append(r.holder.enter(), argv...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
	}
	return cmd
}

// HostCommand returns a command of this machine that runs in the root's mount, PID,
// IPC and UTS namespaces, where the bare root is mounted at [Root.Mounted]. It ends
// with the root, however this program ends.
func (r *Root) HostCommand(argv ...string) *exec.Cmd {
	return exec.Command("nsenter", append(r.holder.namespaces(), argv...)...)
}

// Mounted returns the directory at which commands of [Root.HostCommand] find the bare
// root.
func (r *Root) Mounted() string { return filepath.Join(r.holder.mnt, "view") }

// Run runs a command in the root and returns its standard output. The error of
// a command that fails carries the end of its standard error.
func (r *Root) Run(ctx context.Context, argv ...string) (string, error) {
	cmd := r.Command(ctx, argv...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(stderr.String(), 2000))
	}
	return string(out), nil
}

// Shell runs a shell script in the root, with -e and -u, and returns its output.
func (r *Root) Shell(ctx context.Context, script string) (string, error) {
	return r.Run(ctx, "sh", "-euc", script)
}

// Close ends every process of the root, and the root with them. It may be
// called twice.
func (r *Root) Close() error {
	r.holder.stop()
	return r.log.close()
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
