// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package nspawn

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// cgroupScript makes a cgroup and removes it, with all below it, after its standard
// input has been closed. It runs in a session of its own so that a signal to the
// program's process group does not end it. The kernel refuses to remove a cgroup with
// processes in it, and those of a machine may take a moment to end.
const cgroupScript = `
mount -t cgroup2 cgroup2 /sys/fs/cgroup
cd /sys/fs/cgroup
mkdir "$1"
echo ready
cat >/dev/null
tries=0
while [ -d "$1" ] && [ $tries -lt 3000 ]; do
	find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
	tries=$((tries + 1))
done
[ ! -d "$1" ]
`

// cgroups is the cgroup that a machine's boots have theirs in.
type cgroups struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	once  sync.Once
	err   error
}

var machines atomic.Int64 // that this program has made

func newCgroups() (*cgroups, error) {
	c := &cgroups{name: fmt.Sprintf("totp-lab-%d-%d", os.Getpid(), machines.Add(1))}
	c.cmd = exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-euc", cgroupScript, "cgroups", c.name)
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var stderr strings.Builder
	c.cmd.Stderr = &stderr
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		_ = c.close()
		return nil, fmt.Errorf("%w: cgroups: %s", ErrUnavailable, tail(stderr.String(), 1000))
	}
	return c, nil
}

// close returns after the cgroups are removed.
func (c *cgroups) close() error {
	c.once.Do(func() {
		_ = c.stdin.Close()
		if err := c.cmd.Wait(); err != nil {
			c.err = fmt.Errorf("remove cgroup %s: %w", c.name, err)
		}
	})
	return c.err
}
