// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package nspawn_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/nspawn"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// parent is the environment variable that makes this program boot a machine, say so,
// and wait to be killed.
const parent = "NSPAWN_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parent) == "" {
		os.Exit(m.Run())
	}
	machine, err := nspawn.Open(context.Background(), rootfs.Options{Recipe: rootfs.CloudDebians[1]})
	if err == nil {
		err = machine.Start(context.Background())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	pid, _ := machine.PID()
	fmt.Println(pid)
	select {}
}

func need(t *testing.T) {
	t.Helper()
	if err := nspawn.Available(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// newMachine returns a machine that has not been booted.
func newMachine(t *testing.T, r rootfs.Recipe) *nspawn.Machine {
	t.Helper()
	need(t)
	m, err := nspawn.Open(t.Context(), rootfs.Options{Recipe: r, Log: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	end(t, m)
	if err := m.Insert(nspawn.Seed{InstanceID: "i-1", Hostname: "web1", UserData: "#cloud-config\n"}); err != nil {
		t.Fatal(err)
	}
	return m
}

// end closes a machine after the test.
func end(t *testing.T, m *nspawn.Machine) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", m.Console())
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

func start(t *testing.T, m *nspawn.Machine) {
	t.Helper()
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func shell(t *testing.T, m *nspawn.Machine, script string) string {
	t.Helper()
	out, err := m.Shell(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func TestBoot(t *testing.T) {
	for _, r := range rootfs.CloudDebians {
		t.Run(r.Suite, func(t *testing.T) {
			began := time.Now()
			m := newMachine(t, r)
			start(t, m)
			t.Logf("up after %s", time.Since(began).Round(10*time.Millisecond))
			for script, want := range map[string]string{
				"cat /proc/1/comm": "systemd",
				"hostname":         "web1",
				"systemctl is-active ssh.service cloud-final.service": "active\nactive",
				"cloud-init query instance_id":                        "i-1",
				"ls /sys/class/net":                                   "lo",
			} {
				if got := shell(t, m, script); got != want {
					t.Errorf("%s: got %q, want %q", script, got, want)
				}
			}
			greeted(t, m, "sshd on the forwarded port", func() (net.Conn, error) { return net.Dial("tcp", m.Addr()) })
			for _, addr := range []string{"127.0.0.1:22", "[::1]:22"} {
				greeted(t, m, addr, func() (net.Conn, error) { return m.Dial(t.Context(), "tcp", addr) })
			}
			if !strings.Contains(m.Console(), "Cloud-init v.") {
				t.Errorf("the console has nothing of cloud-init:\n%s", m.Console())
			}
		})
	}
}

func greeted(t *testing.T, m *nspawn.Machine, name string, dial func() (net.Conn, error)) {
	t.Helper()
	conn, err := dial()
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Minute))
	line, err := bufio.NewReader(conn).ReadString('\n')
	if !strings.HasPrefix(line, "SSH-2.0-OpenSSH") {
		t.Errorf("%s: got %q, %v", name, line, err)
	}
}

func TestDiskOutlivesBoots(t *testing.T) {
	m := newMachine(t, rootfs.CloudDebians[1])
	if _, err := m.Shell(t.Context(), "true"); !errors.Is(err, nspawn.ErrEnded) {
		t.Errorf("a command before the first boot: %v", err)
	}
	boots := map[string]bool{}
	booted := func(what string) {
		t.Helper()
		id := shell(t, m, "echo "+what+" >>/etc/mark; journalctl --list-boots | wc -l; systemd-id128 boot-id")
		if boots[id] {
			t.Errorf("%s: the same boot", what)
		}
		boots[id] = true
	}
	start(t, m)
	booted("first")
	if err := m.Boot(t.Context()); !errors.Is(err, nspawn.ErrRunning) {
		t.Errorf("booted twice: %v", err)
	}
	if _, err := m.Clone(); !errors.Is(err, nspawn.ErrRunning) {
		t.Errorf("cloned while it runs: %v", err)
	}
	if err := m.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	booted("reboot")
	if err := m.Cut(); err != nil {
		t.Fatal(err)
	}
	if m.Running() {
		t.Error("it runs after a power cut")
	}
	start(t, m)
	booted("cut")
	if _, err := m.Shell(t.Context(), "systemctl reboot"); err != nil {
		t.Fatal(err)
	}
	if again, err := m.WaitEnd(t.Context()); err != nil || !again {
		t.Errorf("a reboot from inside: %v, %v", again, err)
	}
	start(t, m)
	booted("inside")
	if err := m.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(m.Path("/etc/mark"))
	if want := "first\nreboot\ncut\ninside\n"; err != nil || string(data) != want {
		t.Errorf("the disk has %q, %v, want %q", data, err, want)
	}
}

func TestCloneIsApart(t *testing.T) {
	m := newMachine(t, rootfs.CloudDebians[2])
	start(t, m)
	if err := m.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	read := func(m *nspawn.Machine, name string) string {
		t.Helper()
		data, err := os.ReadFile(m.Path(name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	c, err := m.Clone()
	if err != nil {
		t.Fatal(err)
	}
	end(t, c)
	const id, key = "/etc/machine-id", "/etc/ssh/ssh_host_ed25519_key.pub"
	if read(c, id) != read(m, id) || read(c, key) != read(m, key) {
		t.Error("a clone has other files than the original")
	}
	if err := c.Insert(nspawn.Seed{InstanceID: "i-2", Hostname: "web2", UserData: "#cloud-config\n"}); err != nil {
		t.Fatal(err)
	}
	// Both at once, as one is ended.
	var both sync.WaitGroup
	for _, m := range []*nspawn.Machine{m, c} {
		both.Go(func() {
			if err := m.Start(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if t.Failed() {
		return
	}
	if got := shell(t, m, "hostname; cloud-init query instance_id") + shell(t, c, "hostname; cloud-init query instance_id"); got != "web1\ni-1web2\ni-2" {
		t.Errorf("they are %q", got)
	}
	if read(c, key) == read(m, key) {
		t.Error("a new instance has the host key of the original")
	}
	if err := m.Cut(); err != nil {
		t.Fatal(err)
	}
	if got := shell(t, c, "systemctl is-active ssh.service"); got != "active" {
		t.Errorf("after the other has lost its power, sshd is %q", got)
	}
}

// Connections come from where the test wants, in the machine's network only.
func TestRoutedSources(t *testing.T) {
	m := newMachine(t, rootfs.CloudDebians[2])
	start(t, m)
	if err := m.Route(t.Context(), netip.MustParsePrefix("2001:db8:1::/48")); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"2001:db8:1::1", "2001:db8:1:2:3:4:5:6", "::1", "127.0.0.9"} {
		from := netip.MustParseAddr(source)
		server := "[::1]:22"
		if from.Is4() {
			server = "127.0.0.1:22"
		}
		greeted(t, m, source, func() (net.Conn, error) {
			conn, err := m.DialFrom(t.Context(), from, server)
			if err == nil && conn.LocalAddr().(*net.TCPAddr).IP.String() != source {
				t.Errorf("from %s, want %s", conn.LocalAddr(), source)
			}
			return conn, err
		})
	}
	if out, err := exec.Command("ip", "-6", "route", "show", "table", "local").Output(); err != nil || strings.Contains(string(out), "2001:db8:1:") {
		t.Errorf("the route is this machine's: %v\n%s", err, out)
	}
	if out, err := m.HostCommand(t.Context(), "ip", "-br", "link").Output(); err != nil || !strings.HasPrefix(string(out), "lo ") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("the machine's network is %q, %v", out, err)
	}
}

// What a machine was leaves no process, mount or cgroup behind: after Close, and after
// the program that made it was killed.
func TestNothingIsLeft(t *testing.T) {
	need(t)
	t.Run("closed", func(t *testing.T) {
		m := newMachine(t, rootfs.CloudDebians[1])
		start(t, m)
		pid, err := m.PID()
		if err != nil {
			t.Fatal(err)
		}
		gone(t, os.Getpid(), fmt.Sprint(pid), m.Close)
	})
	t.Run("killed", func(t *testing.T) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), parent+"=1")
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		gone(t, cmd.Process.Pid, strings.TrimSpace(line), func() error {
			err := cmd.Process.Kill()
			_ = cmd.Wait()
			return err
		})
	})
}

// gone wants all to be gone soon after end, of a machine that a process has made whose
// PID 1 is pid.
func gone(t *testing.T, owner int, pid string, end func() error) {
	t.Helper()
	running := func() bool { _, err := os.Stat("/proc/" + pid); return !errors.Is(err, fs.ErrNotExist) }
	if !running() || !hasCgroups(t, owner) {
		t.Fatalf("before its end: process %v, cgroups %v", running(), hasCgroups(t, owner))
	}
	if err := end(); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(5 * time.Minute); running() || hasCgroups(t, owner); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("left behind: process %v, cgroups %v", running(), hasCgroups(t, owner))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), "/mnt/view") {
		t.Errorf("mounts of this machine: %v\n%s", err, mounts)
	}
}

// hasCgroups reports whether there is a cgroup of a machine that a process has made.
func hasCgroups(t *testing.T, owner int) bool {
	t.Helper()
	out, err := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-euc",
		"mount -t cgroup2 cgroup2 /sys/fs/cgroup; ls /sys/fs/cgroup").Output()
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(name, fmt.Sprintf("totp-lab-%d-", owner)) {
			return true
		}
	}
	return false
}
