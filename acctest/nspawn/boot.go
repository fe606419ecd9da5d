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
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/creack/pty"
)

// limit is how long a boot, a shutdown or an event of one may take. It is there for
// what will never come, not for what is slow.
const limit = 10 * time.Minute

// rebooted is the exit status of systemd-nspawn with --keep-unit after a reboot.
const rebooted = 133

// bootScript gives systemd-nspawn what it expects of a machine whose PID 1 is
// systemd: cgroup v2 alone, in a cgroup of its own, and a /run that is its own.
const bootScript = `
mount -t proc proc /proc
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$1"
echo 0 >"/sys/fs/cgroup/$1/cgroup.procs"
shift
exec systemd-nspawn "$@"
`

// boot is one run of a machine.
type boot struct {
	cmd     *exec.Cmd
	console *console
	pid     int // of the machine's PID 1, as this machine counts
	done    chan struct{}
	code    int // exit status of systemd-nspawn; after done
}

// Boot starts the machine and returns after its PID 1 has started.
func (m *Machine) Boot(ctx context.Context) error {
	if m.Running() {
		return fmt.Errorf("boot: %w", ErrRunning)
	}
	m.mu.Lock()
	m.boots++
	number := m.boots
	m.mu.Unlock()
	cmd := m.disk.HostCommand("unshare", "--mount", "--propagation", "private", "sh", "-euc", bootScript, "boot",
		m.cgroups.name+"/"+strconv.Itoa(number),
		"--directory="+m.disk.Mounted(), "--machine=lab", "--quiet", "--boot", "--console=interactive",
		"--register=no", "--keep-unit", "--private-network",
		"--resolv-conf=off", "--timezone=off", "--link-journal=no", "--settings=no")
	// systemd and its programs colour and shorten what they say by the terminal.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TERM=dumb", "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0"}
	term, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 25, Cols: 250})
	if err != nil {
		return err
	}
	b := &boot{cmd: cmd, console: newConsole(term), done: make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		b.console.close()
		b.code = cmd.ProcessState.ExitCode()
		close(b.done)
	}()
	// In reach of Cut from here on; what needs PID 1 waits for it below.
	m.mu.Lock()
	m.current = b
	m.mu.Unlock()
	var pid int
	err = m.until(ctx, "PID 1", func() bool { pid = firstProcess(cmd.Process.Pid); return pid != 0 })
	if err != nil {
		return errors.Join(err, m.Cut())
	}
	m.mu.Lock()
	b.pid = pid
	m.mu.Unlock()
	return nil
}

// Start boots the machine and waits until it is up.
func (m *Machine) Start(ctx context.Context) error {
	if err := m.Boot(ctx); err != nil {
		return err
	}
	return m.WaitUp(ctx)
}

// WaitUp returns after systemd has run every job of the boot: cloud-init has finished
// and sshd has been started. Units may have failed.
func (m *Machine) WaitUp(ctx context.Context) error {
	return m.until(ctx, "booting", func() bool {
		out, _ := m.Command(ctx, "systemctl", "is-system-running").Output()
		switch strings.TrimSpace(string(out)) {
		case "running", "degraded":
			return true
		}
		return false
	})
}

// Running reports whether the machine has been booted and has not ended.
func (m *Machine) Running() bool {
	b := m.now()
	if b == nil {
		return false
	}
	select {
	case <-b.done:
		return false
	default:
		return true
	}
}

// PID returns the process ID that the running machine's PID 1 has on this machine.
func (m *Machine) PID() (int, error) {
	if m.Running() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.current.pid != 0 {
			return m.current.pid, nil
		}
	}
	return 0, ErrEnded
}

// PowerOff shuts the machine down in order, as its power button does.
func (m *Machine) PowerOff(ctx context.Context) error {
	// systemd(1): SIGRTMIN+4 starts poweroff.target, SIGRTMIN+5 reboot.target.
	if err := m.shutDown(ctx, 4); err != nil {
		return err
	}
	if code := m.now().code; code != 0 {
		return fmt.Errorf("shut down: systemd-nspawn ended with exit status %d: %s", code, m.lastLine())
	}
	return nil
}

// Reboot shuts the machine down in order for a reboot and starts it again. It returns
// after the machine is up.
func (m *Machine) Reboot(ctx context.Context) error {
	if err := m.shutDown(ctx, 5); err != nil {
		return err
	}
	if code := m.now().code; code != rebooted {
		return fmt.Errorf("reboot: systemd-nspawn ended with exit status %d: %s", code, m.lastLine())
	}
	return m.Start(ctx)
}

// WaitEnd returns after the machine has ended by itself, and reports whether it wants
// to be booted again.
func (m *Machine) WaitEnd(ctx context.Context) (reboot bool, err error) {
	b := m.now()
	if b == nil {
		return false, ErrEnded
	}
	if err := m.wait(ctx, "ending", func() bool { return !m.Running() }); err != nil {
		return false, err
	}
	return b.code == rebooted, nil
}

// Cut cuts the power: the kernel kills PID 1 and with it every process of the
// machine. It may be called on a machine that is not running.
func (m *Machine) Cut() error {
	b := m.now()
	if b == nil {
		return nil
	}
	if pid, err := m.PID(); err == nil {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	} else if m.Running() {
		killTree(b.cmd.Process.Pid) // it has not come as far as PID 1
	}
	<-b.done
	return nil
}

// killTree kills a process and all below it, parents first, so that none has more
// children meanwhile.
func killTree(pid int) {
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	below, _ := children(pid)
	_ = syscall.Kill(pid, syscall.SIGKILL)
	for _, child := range below {
		killTree(child)
	}
}

// shutDown sends a signal of systemd's to PID 1 and waits for the end.
func (m *Machine) shutDown(ctx context.Context, signal int) error {
	const sigRTMin = 34 // of the C library, which systemd counts from
	var asked time.Time
	return m.wait(ctx, "shutting down", func() bool {
		// PID 1 ignores the signal before it has set up its handlers.
		if pid, err := m.PID(); err == nil && time.Since(asked) > 10*time.Second {
			asked = time.Now()
			_ = syscall.Kill(pid, syscall.Signal(sigRTMin+signal))
		}
		return !m.Running()
	})
}

func (m *Machine) now() *boot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// until waits for an event of a machine that must not end meanwhile.
func (m *Machine) until(ctx context.Context, what string, reached func() bool) error {
	var ended bool
	err := m.wait(ctx, what, func() bool {
		ended = !m.Running()
		return reached() || ended
	})
	if err == nil && ended && !reached() {
		return fmt.Errorf("%s: %w: %s", what, ErrEnded, m.lastLine())
	}
	return err
}

func (m *Machine) wait(ctx context.Context, what string, reached func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, ErrTimeout)
	defer cancel()
	for !reached() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w: %s", what, context.Cause(ctx), m.lastLine())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

var namespacePIDs = regexp.MustCompile(`(?m)^NSpid:\s.*\s1$`)

// firstProcess returns the PID of the process below nsenter that is the first of a
// PID namespace: systemd-nspawn's child. It returns 0 while there is none.
func firstProcess(nsenter int) int {
	spawners, err := children(nsenter)
	if err != nil || len(spawners) != 1 {
		return 0
	}
	pids, err := children(spawners[0])
	if err != nil {
		return 0
	}
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil || !namespacePIDs.Match(status) {
			continue
		}
		// Before it has become systemd, it is still setting up the namespaces.
		if name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.HasPrefix(string(name), "systemd\n") {
			return pid
		}
	}
	return 0
}
