// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A scene is the machine as the processes of the self-test see it: all of it
// read-only, with memory over what a login writes.
type scene struct {
	log *catcher // what PAM modules say
}

// dir is where the self-test keeps its own things; /run is memory here.
const dir = target.RunDir + "/selftest"

// shields are directories over which there is memory, empty: a login writes
// there, or finds services of the real machine there, such as systemd-logind,
// which must not hear of it.
var shields = []struct {
	path string
	mode uint32
}{
	{"/run", 0o755},
	{"/tmp", 0o1777},
	{"/var/tmp", 0o1777},
	{"/var/log", 0o755},         // wtmp, btmp, lastlog, faillog
	{"/var/lib/lastlog", 0o755}, // of Debian 13's lastlog2
	{"/var/lib/wtmpdb", 0o755},  // of Debian 13's wtmpdb
	{"/var/lib/systemd", 0o755}, // linger, and what else belongs to logind
}

// devices are those that programs of a login open.
var devices = []string{"null", "zero", "full", "random", "urandom", "tty"}

// setScene makes the scene of the namespaces that the process is in. Everything
// in it ends with them.
func setScene() (*scene, error) {
	// Nothing that is mounted here may be seen outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("/: making mounts private: %w; the root directory must be a mount point", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return nil, fmt.Errorf("/proc: %w", err)
	}
	if err := readOnly(); err != nil {
		return nil, err
	}
	for _, s := range shields {
		if fi, err := os.Stat(s.path); err != nil || !fi.IsDir() {
			continue
		}
		if err := memory(s.path, s.mode); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{target.SSHDRunDir, target.RunDir, dir, dir + "/dev", dir + "/home"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := setDevices(dir + "/dev"); err != nil {
		return nil, fmt.Errorf("/dev: %w", err)
	}
	log, err := catch("/dev/log")
	if err != nil {
		return nil, fmt.Errorf("/dev/log: %w", err)
	}
	return &scene{log: log}, loopback()
}

// memory mounts an empty file system over a directory.
func memory(name string, mode uint32) error {
	err := unix.Mount("tmpfs", name, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("mode=%04o,size=16m", mode))
	if err != nil {
		return fmt.Errorf("%s: mounting memory over it: %w", name, err)
	}
	return nil
}

// readOnly makes every mount of this namespace read-only, so that no login can
// change a file of the image, whatever its PAM modules do.
func readOnly() error {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 6 {
			continue
		}
		// proc(5): fields 5 and 6; the rest of the flags must stay.
		name, flags := unescape(f[4]), uintptr(unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY)
		for _, o := range strings.Split(f[5], ",") {
			flags |= map[string]uintptr{"nosuid": unix.MS_NOSUID, "nodev": unix.MS_NODEV, "noexec": unix.MS_NOEXEC,
				"noatime": unix.MS_NOATIME, "nodiratime": unix.MS_NODIRATIME, "relatime": unix.MS_RELATIME}[o]
		}
		if _, kind, ok := strings.Cut(line, " - "); ok && strings.HasPrefix(kind, "autofs ") {
			continue // to look at it would mount what it stands for
		}
		if name == "/proc" || strings.HasPrefix(name, "/proc/") || strings.HasPrefix(name, "/dev") {
			continue // sshd writes its own process's files there; /dev is replaced
		}
		// A mount under another one cannot be reached, and so not be written.
		if err := unix.Mount("", name, "", flags, ""); err != nil && name == "/" {
			return fmt.Errorf("/: making it read-only: %w", err)
		}
	}
	return nil
}

// unescape reads the octal escapes of proc(5).
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// setDevices replaces /dev, whose log and terminals are the machine's.
func setDevices(at string) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return err
	}
	for _, d := range devices {
		name := path.Join(at, d)
		if err := os.WriteFile(name, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+d, name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s: %w", d, err)
		}
	}
	for _, d := range []string{"pts", "shm"} {
		if err := os.Mkdir(path.Join(at, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(path.Join(at, "shm"), fs.ModeSticky|0o777); err != nil {
		return err
	}
	if err := unix.Mount("devpts", path.Join(at, "pts"), "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"); err != nil {
		return fmt.Errorf("pts: %w", err)
	}
	err := errors.Join(
		os.Symlink("pts/ptmx", path.Join(at, "ptmx")),
		os.Symlink("/proc/self/fd", path.Join(at, "fd")),
	)
	if err != nil {
		return err
	}
	return unix.Mount(at, "/dev", "", unix.MS_MOVE, "")
}

// loopback brings up the only interface of the network namespace.
func loopback() error {
	return interfaceRequest("lo", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error {
		r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		return nil
	})
}

func interfaceRequest(name string, request uint, set func(*unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err == nil {
		err = set(r)
	}
	if err == nil {
		err = unix.IoctlIfreq(fd, request, r)
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return nil
}

// replace puts a copy in memory over a file, with the same owner and mode.
func replace(name, text string) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	copied := path.Join(dir, path.Base(name))
	if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	if err := errors.Join(os.Chown(copied, int(st.Uid), int(st.Gid)), os.Chmod(copied, fi.Mode().Perm())); err != nil {
		return err
	}
	if err := unix.Mount(copied, name, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("%s: mounting a copy over it: %w", name, err)
	}
	return nil
}

// cover puts memory over a directory, with the same owner and mode.
func cover(name string) error {
	fi, err := os.Stat(name)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	if err := memory(name, 0o700); err != nil {
		return err
	}
	return errors.Join(os.Chown(name, int(st.Uid), int(st.Gid)), os.Chmod(name, fi.Mode()))
}

// A catcher keeps lines: those of sshd's standard error, and the datagrams that
// PAM modules send to /dev/log.
type catcher struct {
	mu    sync.Mutex
	lines []string
}

func catch(name string) (*catcher, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(name, 0o666); err != nil {
		return nil, err
	}
	c := new(catcher)
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			c.add(string(buf[:n]))
		}
	}()
	return c, nil
}

// read keeps the lines of a file until its end.
func (c *catcher) read(f *os.File) {
	for sc := bufio.NewScanner(f); sc.Scan(); {
		c.add(sc.Text())
	}
}

func (c *catcher) add(line string) {
	// syslog(3)'s priority and time.
	if rest, ok := strings.CutPrefix(line, "<"); ok {
		if _, after, ok := strings.Cut(rest, ">"); ok {
			line = after
		}
		if len(line) > 16 && line[15] == ' ' {
			line = line[16:]
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lines = append(c.lines, strings.TrimRight(line, "\r\n\x00"))
}

// size is how many lines there are.
func (c *catcher) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.lines)
}

// since are the lines from the one numbered n that hold one of the words.
func (c *catcher) since(n int, words ...string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, line := range c.lines[n:] {
		for _, w := range words {
			if strings.Contains(line, w) {
				out = append(out, line)
				break
			}
		}
	}
	return out
}
