// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

// Bench prints what agent and totpctl cost on this machine: the CPU time, memory
// and delay of an enrollment as a whole process, the time of a build over SSH
// beside one that does the manual guide's steps by a shell provisioner, and the
// size of the binary for each architecture. The size is also a gate, see package
// release. It prints as well how long user-data and the opening of a card take, and how many
// envelopes a second the provider's end takes.
//
// It runs the agent in roots of its own and so needs root, and what package
// rootfs needs.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// The limits that the project promises, printed beside what was measured.
const (
	maxSize = 10 << 20
	maxGzip = 4 << 20
	runs    = 20
)

func main() {
	if root := os.Getenv(rootVariable); root != "" {
		if err := child(root); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	dir, err := os.MkdirTemp("", "totp-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	sizes := map[string]size{}
	for _, arch := range []string{"amd64", "arm64"} {
		if sizes[arch], err = unpack(dir, arch); err != nil {
			return err
		}
	}
	printSizes(sizes)
	if err := printDesk(dir); err != nil {
		return err
	}
	if err := printPage(); err != nil {
		return err
	}
	if err := printReceived(dir); err != nil {
		return err
	}
	fmt.Println()
	if os.Geteuid() != 0 {
		return errors.New("the times need root, since the agent runs in a root of its own")
	}
	if err := printTimes(dir); err != nil {
		return err
	}
	return printBuilds(context.Background(), dir)
}

type size struct {
	Binary, Gzip int
}

func agent(dir, arch string) string { return filepath.Join(dir, "totp-agent-"+arch) }

// unpack writes the agent that make has built for the architecture into dir.
func unpack(dir, arch string) (size, error) {
	packed, err := os.ReadFile("internal/agentbin/agents/totp-agent-linux-" + arch + ".gz")
	if err != nil {
		return size{}, fmt.Errorf("%w; make bench builds it", err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return size{}, err
	}
	b, err := io.ReadAll(r)
	if err != nil {
		return size{}, err
	}
	return size{len(b), len(packed)}, os.WriteFile(agent(dir, arch), b, 0o755)
}

func printSizes(now map[string]size) {
	fmt.Printf("%-28s %12s %12s\n", "agent", "binary", "gzipped")
	fmt.Printf("%-28s %12s %12s\n", "limit", mib(maxSize), mib(maxGzip))
	for _, arch := range []string{"amd64", "arm64"} {
		fmt.Printf("%-28s %12s %12s\n", "linux/"+arch, mib(now[arch].Binary), mib(now[arch].Gzip))
	}
	fmt.Println()
}

func mib(n int) string { return fmt.Sprintf("%.2f MiB", float64(n)/(1<<20)) }

func printTimes(dir string) error {
	fmt.Printf("%-28s %12s %12s %12s %12s\n", "totp-agent enroll", "users", "CPU", "wall", "peak memory")
	var first [2]cost
	for i, users := range []int{1, 11} {
		var err error
		if first[i], err = measure(dir, users, true); err != nil {
			return err
		}
		first[i].print("first boot", users)
		later, err := measure(dir, users, false)
		if err != nil {
			return err
		}
		later.print("later boot", users)
	}
	per := (first[1].CPU - first[0].CPU) / 10
	fmt.Printf("%-28s %12s %12s\n", "per further user", "", per.Round(10*time.Microsecond))
	fmt.Printf("\nlimits: 10ms CPU for one user and 1.5ms per further one, 50ms wall at the first boot and 15ms later, 24 MiB\n"+
		"wall is that of the process, which is what the unit adds to the start of sshd; not in it is what systemd itself needs to start a unit,\n"+
		"nor a real cloud-init's files\nmedians of %d runs each\n", runs)
	return nil
}

type cost struct {
	CPU, Wall time.Duration
	RSS       int64 // KiB
}

func (c cost) print(what string, users int) {
	fmt.Printf("%-28s %12d %12s %12s %12s\n", what, users, c.CPU.Round(10*time.Microsecond), c.Wall.Round(10*time.Microsecond), mib(int(c.RSS)<<10))
}

// measure runs the agent as a boot does: in a fresh root each time for a first
// boot, in the same root for later ones.
func measure(dir string, users int, fresh bool) (cost, error) {
	var all []cost
	root, err := machine(dir, users)
	if err != nil {
		return cost{}, err
	}
	for i := range runs + 1 {
		if fresh && i > 0 {
			if root, err = machine(dir, users); err != nil {
				return cost{}, err
			}
		}
		c, err := once(root)
		if err != nil {
			return cost{}, err
		}
		if i > 0 { // the first warms the page cache, and enrolls where later boots are measured
			all = append(all, c)
		}
	}
	median := func(of func(cost) int64) int64 {
		v := make([]int64, len(all))
		for i, c := range all {
			v[i] = of(c)
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return cost{
		time.Duration(median(func(c cost) int64 { return int64(c.CPU) })),
		time.Duration(median(func(c cost) int64 { return int64(c.Wall) })),
		median(func(c cost) int64 { return c.RSS }),
	}, nil
}

// once runs the agent by a small process of this program's own: a child's peak
// memory is never reported as less than what its parent had when it forked.
func once(root string) (cost, error) {
	self, err := os.Executable()
	if err != nil {
		return cost{}, err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), rootVariable+"="+root)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return cost{}, err
	}
	var c cost
	return c, json.Unmarshal(out, &c)
}

const rootVariable = "TOTP_BENCH_ROOT"

// child is the small process.
func child(root string) error {
	if err := boot(root); err != nil {
		return err
	}
	cmd := exec.Command("/totp-agent", "enroll")
	cmd.Env, cmd.Dir = []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	wall := time.Since(start)
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return json.NewEncoder(os.Stdout).Encode(cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), wall, usage.Maxrss})
}
