// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A bake that meets one error, at whatever change, takes everything back: also where the
// change was made and its sync failed. The error names the step and a file. An error that
// stays keeps it from that, and it does not say otherwise.
func TestFaults(t *testing.T) {
	isLive = func(*target.Target) bool { return true }
	t.Cleanup(func() { isLive = (*target.Target).Live })
	m := newMachine(t)
	earlier(m)
	changes := []string{"create", "write", "sync", "syncdir", "syncfs", "rename", "remove", "mkdir", "symlink", "chmod"}
	var points []string // "OP NAME"
	m.Fault(func(op, name string) error {
		if slices.Contains(changes, op) {
			points = append(points, op+" "+name)
		}
		return nil
	})
	at := func(n int, stays bool) func(op, name string) error {
		count := 0
		return func(op, name string) error {
			if slices.Contains(changes, op) {
				count++
			}
			if slices.Contains(changes, op) && (count == n || stays && count > n) {
				return syscall.EIO
			}
			return nil
		}
	}
	o := m.options()
	if _, err := Run(t.Context(), m.Target, o); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, p := range points {
		op, _, _ := strings.Cut(p, " ")
		seen[op] = true
	}
	for _, op := range []string{"write", "sync", "syncdir", "syncfs", "rename", "remove", "mkdir", "symlink"} {
		if !seen[op] {
			t.Errorf("a bake does no %s", op)
		}
	}
	// Files are written all in one way: one of six. What follows a link is its sync.
	rare := func(n int) bool {
		return n > 0 && slices.ContainsFunc([]string{"symlink ", "remove ", "mkdir ", "chmod ", "syncfs ", "rename " + target.PAMCopy + ".replaced"}, func(op string) bool { return strings.HasPrefix(points[n-1], op) })
	}
	op := func(n int) string { op, _, _ := strings.Cut(points[n-1], " "); return op }
	for n := 1; n <= len(points); n++ {
		if n%6 != 0 && (testing.Short() || !rare(n) && !rare(n-1)) {
			continue
		}
		for _, stays := range []bool{false, true} {
			if stays && n%30 != 0 {
				continue
			}
			m = newMachine(t)
			earlier(m)
			name := fmt.Sprintf("%d of %d, %s, stays %v", n, len(points), points[n-1], stays)
			before := snapshot(t, m.Root(), false)
			var log strings.Builder
			o := m.options()
			o.Log = &log
			m.Fault(at(n, stays))
			_, err := Run(t.Context(), m.Target, o)
			m.Fault(nil)
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: error %v", name, err)
				continue
			}
			first, _, _ := strings.Cut(err.Error(), "\n")
			if what, _, ok := strings.Cut(first, ": "); !ok || strings.Contains(what, "/") || !strings.Contains(first, " /") || op(n) == "write" && !strings.Contains(first, ": "+strings.TrimPrefix(points[n-1], "write ")+": ") {
				t.Errorf("%s: the error names no step or no file: %s", name, first)
			}
			d := before.diff(snapshot(t, m.Root(), false))
			if claims := strings.Contains(log.String(), "every file is as it was"); d != nil && (!stays || claims) {
				t.Errorf("%s: not restored (and the log says so: %v):\n%s\n%v", name, claims, strings.Join(d, "\n"), err)
			}
		}
	}
}

// earlier puts the files of an older bake, and what a distribution has, on a machine.
func earlier(m *machine) {
	m.put(target.AgentPath, elfAMD64+" of old", 0o700)
	m.put(target.SSHDDropIn, "# old\n", 0o640)
	m.put(target.ImagePolicy, "version: 1\n", 0o600)
	m.put(sshUnitTemplate, "# old\n", 0o600)
	m.put("/etc/systemd/system/ssh.service.requires/x", "", 0o644)
	m.must(m.Mkdir("/etc/systemd/system/sockets.target.wants", 0o700))
	for _, dir := range []string{"ssh.service.requires", "sockets.target.wants"} {
		m.must(m.Symlink("/lib/systemd/system/ssh.socket", "/etc/systemd/system/"+dir+"/ssh.socket"))
	}
	m.must(m.Symlink("/lib/systemd/system/ssh.socket", "/etc/systemd/system/ssh.socket"))
	m.must(m.Mkdir(target.PAMCopy, 0o755)) // is moved aside
}
