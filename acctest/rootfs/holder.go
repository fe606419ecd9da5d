// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package rootfs

import (
	"bufio"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// holderScript is the first process of a root's PID namespace. It makes the
// root out of the base and a layer in memory, and ends when its standard input
// does, which is when the program that holds the other end is gone; the kernel
// then ends everything else and drops mounts and memory.
//
// view is the bare root; processes run in a second mount of it, with /proc and
// /dev. The script itself stays outside, since systemd and its tools know a
// chroot by /proc/1/root.
const holderScript = `
cd "$1"
mount -t tmpfs -o mode=0755 tmpfs mnt
mkdir mnt/upper mnt/work mnt/view mnt/root
if [ -n "$3" ]; then cp --archive "$3/." mnt/upper; fi
mount -t overlay -o "lowerdir=$2,upperdir=mnt/upper,workdir=mnt/work" overlay mnt/view
mount --bind mnt/view mnt/root
cd mnt/root
hostname "$4"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t tmpfs -o mode=0755,nosuid tmpfs dev
mknod -m 666 dev/null c 1 3
mknod -m 666 dev/zero c 1 5
mknod -m 666 dev/full c 1 7
mknod -m 666 dev/random c 1 8
mknod -m 666 dev/urandom c 1 9
mknod -m 666 dev/tty c 5 0
mkdir dev/pts dev/shm
chmod 1777 dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5,nosuid,noexec devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
echo ready
cat
exit 0
`

// hostname is what programs in a root see.
const hostname = "rootfs-lab"

// holder is the process that a root's namespaces live and die with.
type holder struct {
	cmd   *exec.Cmd
	stdin io.Closer
	pid   int    // of the namespaces' first process, as the host counts
	mnt   string // the mount point, in the namespaces
	once  sync.Once
}

// open starts a root over base, with the files of another root's upper layer
// where one is given.
func open(base, upper string) (*Root, error) {
	h, err := startHolder(base, upper)
	if err != nil {
		return nil, err
	}
	log, err := catchLog(h.path("root/dev"))
	if err != nil {
		h.stop()
		return nil, err
	}
	return &Root{base: base, holder: h, log: log}, nil
}

func startHolder(base, upper string) (*holder, error) {
	dir := filepath.Dir(base)
	mnt := filepath.Join(dir, "mnt") // the same for all: each mounts in its own namespace
	if err := os.MkdirAll(mnt, 0o755); err != nil {
		return nil, err
	}
	// The layers are named relative to dir, so that no path can end up as an
	// option of mount.
	cmd := exec.Command("unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "--propagation", "private",
		"sh", "-euc", holderScript, "holder", dir, filepath.Base(base), upper, hostname)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	h := &holder{cmd: cmd, stdin: stdin, mnt: mnt}
	if line, _ := bufio.NewReader(stdout).ReadString('\n'); line != "ready\n" {
		h.stop()
		return nil, fmt.Errorf("%w: namespaces: %s", ErrUnavailable, tail(stderr.String(), 1000))
	}
	if h.pid, err = onlyChild(cmd.Process.Pid); err != nil {
		h.stop()
		return nil, err
	}
	return h, nil
}

// path returns where the host finds something under the mount point.
func (h *holder) path(name string) string {
	return filepath.Join("/proc", strconv.Itoa(h.pid), "root", h.mnt, name)
}

// enter returns nsenter's arguments up to a command in the root.
func (h *holder) enter() []string {
	// nsenter's own --root is opened in the host's namespace, without our mounts.
	return append(h.namespaces(), "chroot", filepath.Join(h.mnt, "root"))
}

// namespaces returns nsenter's arguments that name the namespaces.
func (h *holder) namespaces() []string {
	return []string{"--target", strconv.Itoa(h.pid), "--mount", "--pid", "--uts", "--ipc"}
}

func (h *holder) stop() {
	h.once.Do(func() {
		_ = h.stdin.Close()
		timer := time.AfterFunc(time.Minute, func() { _ = h.cmd.Process.Kill() })
		defer timer.Stop()
		_ = h.cmd.Wait()
	})
}

func onlyChild(pid int) (int, error) {
	name := fmt.Sprintf("/proc/%d/task/%d/children", pid, pid)
	data, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return 0, fmt.Errorf("%s: %q is not one process", name, data)
	}
	return child, nil
}

// settle gives the root what a machine gets from outside: a resolver, a name,
// an identity and the directory that sshd wants under /run.
func (r *Root) settle() error {
	resolv, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return err
	}
	files := map[string]string{
		"/etc/resolv.conf": string(resolv),
		"/etc/hostname":    hostname + "\n",
		"/etc/hosts":       "127.0.0.1 localhost " + hostname + "\n::1 localhost\n",
		"/etc/machine-id":  hex.EncodeToString(id) + "\n",
	}
	for name, data := range files {
		name = r.Path(name)
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(name, []byte(data), 0o644); err != nil {
			return err
		}
	}
	return os.MkdirAll(r.Path("/run/sshd"), 0o755)
}
