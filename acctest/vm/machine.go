// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/report"
)

// EnrollPort is the name of the machine's virtio-serial port.
const EnrollPort = "org.totp.enroll.0"

// Sentinel errors of a machine; they arrive wrapped.
var (
	ErrEnded   = errors.New("the machine has ended")
	ErrTimeout = errors.New("the machine took too long")
)

// Config is what a machine is made of.
type Config struct {
	Base    Base   // for kernel and initrd
	Disk    string // qcow2, written to
	Console string // file that the serial console is appended to
	Seed    Seed   // zero: the datasource cannot be reached
	UUID    string // the same for the same machine
	Accel   Accel
	Stay    bool             // goes on when this program ends
	Report  *report.Reporter // is told about what takes long; may be nil
}

// Machine is a virtual machine that is running, or has been.
type Machine struct {
	Port    int    // of SSH on 127.0.0.1
	Enroll  string // UNIX socket of the virtio-serial port; QEMU listens
	Console string

	report *report.Reporter
	cmd    *exec.Cmd
	dir    string // sockets; UNIX limits the length of their names
	from   int64  // where this boot's console log begins
	done   chan struct{}
	stderr *strings.Builder
	once   sync.Once
}

// Start boots a machine. It must be ended with [Machine.PowerOff] or
// [Machine.Cut].
func Start(ctx context.Context, c Config) (*Machine, error) {
	for try := 0; ; try++ {
		m, err := start(ctx, c)
		if errors.Is(err, errPortTaken) && try < 5 {
			continue
		}
		return m, err
	}
}

// errPortTaken says that another program was faster.
var errPortTaken = errors.New("port taken")

func start(ctx context.Context, c Config) (*Machine, error) {
	dir, err := os.MkdirTemp("", "totp-vm-")
	if err != nil {
		return nil, err
	}
	if c.Report == nil {
		c.Report = report.New(io.Discard)
	}
	m := &Machine{
		Enroll:  filepath.Join(dir, "enroll"),
		Console: c.Console,
		report:  c.Report,
		dir:     dir,
		done:    make(chan struct{}),
		stderr:  &strings.Builder{},
	}
	if err := m.start(ctx, c); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return m, nil
}

func (m *Machine) start(ctx context.Context, c Config) error {
	if c.Seed != (Seed{}) {
		if err := c.Seed.write(ctx, m.seed()); err != nil {
			return err
		}
	}
	if info, err := os.Stat(c.Console); err == nil {
		m.from = info.Size()
	}
	var err error
	if m.Port, err = port.Free(); err != nil {
		return err
	}
	m.cmd = exec.Command("qemu-system-x86_64", c.args(m)...)
	m.cmd.Stderr = m.stderr
	var ended <-chan error
	if c.Stay {
		m.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is not for it
		m.cmd.Stderr = nil
		ended, err = startToStay(m.cmd)
	} else {
		ended, err = child.Start(m.cmd, syscall.SIGKILL)
	}
	if err != nil {
		return err
	}
	go func() { <-ended; close(m.done) }()
	// The monitor answers when QEMU has found nothing wrong with options and port.
	if err := m.until(ctx, "starting qemu", time.Minute, func() bool {
		return command(ctx, m.monitor(), "query-status") == nil
	}); err != nil {
		m.Cut()
		if strings.Contains(m.stderr.String(), "host forwarding rule") {
			return errPortTaken
		}
		return fmt.Errorf("%w\n%s", err, strings.TrimSpace(m.stderr.String()))
	}
	return nil
}

func startToStay(cmd *exec.Cmd) (<-chan error, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return ended, nil
}

func (c Config) args(m *Machine) []string {
	args := []string{
		"-name", "totp-lab", "-uuid", c.UUID,
		"-machine", c.Accel.machine(), "-cpu", c.Accel.cpu(), "-smp", strconv.Itoa(c.Accel.CPUs()), "-m", "1024",
		"-nodefaults", "-no-user-config", "-display", "none",
		"-kernel", c.Base.Kernel, "-initrd", c.Base.Initrd, "-append", KernelArgs,
		"-drive", "if=virtio,format=qcow2,file=" + escapeOption(c.Disk),
		"-netdev", fmt.Sprintf("user,id=net,hostfwd=tcp:127.0.0.1:%d-:22", m.Port),
		"-device", "virtio-net-pci,netdev=net,romfile=",
		"-device", "virtio-rng-pci",
		"-device", "virtio-serial-pci",
		"-chardev", "socket,id=enroll,server=on,wait=off,path=" + escapeOption(m.Enroll),
		"-device", "virtserialport,chardev=enroll,name=" + EnrollPort,
		"-chardev", "socket,id=console,server=on,wait=off,logappend=on,path=" + escapeOption(m.keyboard()) + ",logfile=" + escapeOption(c.Console),
		"-serial", "chardev:console",
		"-qmp", "unix:" + escapeOption(m.monitor()) + ",server=on,wait=off",
	}
	if c.Seed != (Seed{}) {
		args = append(args, "-drive", "if=virtio,format=raw,readonly=on,file="+escapeOption(m.seed()))
	}
	return args
}

// escapeOption writes a value for a list of options of QEMU.
func escapeOption(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func (m *Machine) seed() string     { return filepath.Join(m.dir, "seed.iso") }
func (m *Machine) monitor() string  { return filepath.Join(m.dir, "monitor") }
func (m *Machine) keyboard() string { return filepath.Join(m.dir, "console") }

// PID returns the number of QEMU's process.
func (m *Machine) PID() int { return m.cmd.Process.Pid }

// Addr returns SSH's host and port.
func (m *Machine) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.Port)) }

// Forward makes a TCP port of the running guest's reachable, and returns its
// address on this machine's loopback.
func (m *Machine) Forward(ctx context.Context, guest int) (string, error) {
	free, err := port.Free()
	if err != nil {
		return "", err
	}
	// There is no command of QMP's for it. The other monitor's says what is wrong
	// in its answer.
	got, err := ask(ctx, m.monitor(), "human-monitor-command", map[string]string{
		"command-line": fmt.Sprintf("hostfwd_add net tcp:127.0.0.1:%d-:%d", free, guest),
	})
	if err != nil {
		return "", err
	}
	if string(got) != `""` {
		return "", fmt.Errorf("%w: %s", errQMP, got)
	}
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(free)), nil
}

// Running reports whether the machine has not ended.
func (m *Machine) Running() bool {
	select {
	case <-m.done:
		return false
	default:
		return true
	}
}

// Cut cuts the power. It may be called on a machine that has ended.
func (m *Machine) Cut() {
	if m.Running() {
		_ = m.cmd.Process.Kill()
		<-m.done
	}
	m.once.Do(func() { _ = os.RemoveAll(m.dir) })
}

// PowerOff presses the power button, and waits until the guest has shut down.
func (m *Machine) PowerOff(ctx context.Context) error {
	defer m.Cut()
	if !m.Running() {
		return nil
	}
	pressed := time.Now()
	if err := command(ctx, m.monitor(), "system_powerdown"); err != nil {
		return err
	}
	return m.wait(ctx, "shutting down", 3*time.Minute, func() bool {
		if m.Running() && time.Since(pressed) > 10*time.Second {
			// A guest that is still booting may have nobody who hears it.
			pressed = time.Now()
			_ = command(ctx, m.monitor(), "system_powerdown")
		}
		return !m.Running()
	})
}

// WaitUp returns when cloud-init has finished and sshd sends its greeting. Before
// cloud-init has, it may start sshd anew.
func (m *Machine) WaitUp(ctx context.Context) error {
	finished := regexp.MustCompile(`Cloud-init v\..* finished at `)
	return m.until(ctx, "booting", 8*time.Minute, func() bool {
		// sshd is there, and under a busy machine's emulation needs seconds for it.
		return finished.MatchString(m.ConsoleLog()) && port.Greeted(ctx, m.Addr(), 20*time.Second)
	})
}

// WaitGreeted returns when sshd sends its greeting, for a machine in whose boot
// cloud-init has no part.
func (m *Machine) WaitGreeted(ctx context.Context) error {
	return m.until(ctx, "booting", 8*time.Minute, func() bool { return port.Greeted(ctx, m.Addr(), 5*time.Second) })
}

// WaitConsole returns when the text has been written to the console since the
// machine was started. Colours are not looked at.
func (m *Machine) WaitConsole(ctx context.Context, text string) error {
	return m.until(ctx, "waiting for "+text, 8*time.Minute, func() bool {
		return strings.Contains(colors.ReplaceAllString(m.ConsoleLog(), ""), text)
	})
}

// colors are the SGR sequences of ECMA-48, in which systemd writes names.
var colors = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// ConsoleLog returns what was written to the console since the machine was
// started.
func (m *Machine) ConsoleLog() string {
	f, err := os.Open(m.Console)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(m.from, io.SeekStart); err != nil {
		return ""
	}
	data, _ := io.ReadAll(f)
	return string(data)
}

// lastLine is the last line of the console, for progress.
func (m *Machine) lastLine() string {
	lines := strings.Split(strings.TrimRight(m.ConsoleLog(), "\r\n"), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// until waits for a machine that has to go on running.
func (m *Machine) until(ctx context.Context, what string, limit time.Duration, reached func() bool) error {
	var ended bool
	err := m.wait(ctx, what, limit, func() bool {
		ended = !m.Running()
		return ended || reached()
	})
	if err == nil && ended {
		return fmt.Errorf("%s: %w: %s", what, ErrEnded, m.lastLine())
	}
	return err
}

func (m *Machine) wait(ctx context.Context, what string, limit time.Duration, reached func() bool) error {
	defer m.report.Busy(what, m.lastLine)()
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
