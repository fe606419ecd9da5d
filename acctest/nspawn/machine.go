// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package nspawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// Sentinel errors; they arrive wrapped.
var (
	// ErrUnavailable is returned on a machine that cannot run the lab.
	ErrUnavailable = errors.New("the boot lab cannot run here")
	// ErrRunning is returned for what needs a machine that is shut down.
	ErrRunning = errors.New("the machine is running")
	// ErrEnded is returned for what needs a running machine.
	ErrEnded = errors.New("the machine has ended")
	// ErrTimeout is returned for a machine that took too long.
	ErrTimeout = errors.New("the machine took too long")
)

// Machine is a server that can be booted. Its methods may be called from several
// goroutines, except those that boot it and end it.
type Machine struct {
	disk    *rootfs.Root
	cgroups *cgroups
	sshd    *forward

	mu      sync.Mutex
	boots   int
	current *boot // nil before the first
}

// Available returns nil if the lab can run, and otherwise an error that wraps
// [ErrUnavailable] and names what is missing.
func Available() error {
	if err := rootfs.Available(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	for _, name := range []string{"systemd-nspawn", "ip"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: %s is not installed; run: go run ./acctest/setup test", ErrUnavailable, name)
		}
	}
	out, err := exec.Command("unshare", "--mount", "--propagation", "private", "mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: cannot mount cgroup2: %s", ErrUnavailable, strings.TrimSpace(string(out)))
	}
	return nil
}

// New returns a machine whose disk is root. [Machine.Close] closes the root.
func New(root *rootfs.Root) (*Machine, error) {
	c, err := newCgroups()
	if err != nil {
		return nil, err
	}
	m := &Machine{disk: root, cgroups: c}
	if m.sshd, err = m.listenForSSH(); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return m, nil
}

// Open returns a machine whose disk is a fresh root of a recipe.
func Open(ctx context.Context, o rootfs.Options) (*Machine, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	root, err := rootfs.New(ctx, o)
	if err != nil {
		return nil, err
	}
	m, err := New(root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return m, nil
}

// Clone returns a machine whose disk is a copy of this one's, which must be shut
// down. Every file is the same, machine-id and seed included.
func (m *Machine) Clone() (*Machine, error) {
	if m.Running() {
		return nil, fmt.Errorf("clone: %w", ErrRunning)
	}
	root, err := m.disk.Clone()
	if err != nil {
		return nil, err
	}
	c, err := New(root)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return c, nil
}

// Disk returns the machine's disk. [rootfs.Root.Command] runs programs in it as in a
// chroot, which is how a build changes an image; a running machine has its own
// /run, /proc and /dev, which the disk does not show.
func (m *Machine) Disk() *rootfs.Root { return m.disk }

// Path returns the path on this machine of an absolute path on the machine's disk,
// whether the machine is running or not. It does not follow the machine's symbolic
// links.
func (m *Machine) Path(name string) string { return m.disk.Path(name) }

// Command returns a command that runs on the running machine as root, in all
// namespaces of its PID 1. When ctx ends, only the command's first process is killed.
func (m *Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := []string{"--target", m.target(), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(args, argv...)...)
	cmd.Env = []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
	}
	return cmd
}

// HostCommand returns a command of this machine, such as an SSH client, that runs in
// the network namespace of the running machine.
func (m *Machine) HostCommand(ctx context.Context, argv ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--target", m.target(), "--net", "--"}, argv...)...)
}

// target is the PID of the running machine's PID 1, or a number that no process has.
func (m *Machine) target() string {
	if pid, err := m.PID(); err == nil {
		return strconv.Itoa(pid)
	}
	return strconv.Itoa(1<<31 - 1)
}

// Run runs a command on the running machine and returns its standard output. The
// error of a failed command includes its standard error.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	if !m.Running() {
		return "", fmt.Errorf("%s: %w", strings.Join(argv, " "), ErrEnded)
	}
	cmd := m.Command(ctx, argv...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, tail(stderr.String(), 2000))
	}
	return string(out), nil
}

// Shell runs a shell script on the running machine, with -e and -u, and returns its
// standard output.
func (m *Machine) Shell(ctx context.Context, script string) (string, error) {
	return m.Run(ctx, "sh", "-euc", script)
}

// Close ends the machine and removes it. It may be called twice.
func (m *Machine) Close() error {
	return errors.Join(m.sshd.close(), m.Cut(), m.disk.Close(), m.cgroups.close())
}

// children returns the PIDs of a process's children.
func children(pid int) ([]int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(data)) {
		n, err := strconv.Atoi(field)
		if err != nil {
			return nil, err
		}
		pids = append(pids, n)
	}
	return pids, nil
}

func tail(s string, n int) string {
	s = strings.TrimSpace(s)
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}
