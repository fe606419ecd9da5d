// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package rootfs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
)

// SSHD is the root's own sshd, running.
type SSHD struct {
	Host string // always 127.0.0.1
	Port int

	root *Root
	log  string // as the host sees it
	cmd  *exec.Cmd
	done chan struct{}
	once sync.Once
}

// errPortTaken says that another program was faster.
var errPortTaken = errors.New("port taken")

// StartSSHD starts the root's sshd on a free port of 127.0.0.1 with the
// configuration it finds, and returns when it answers. Address, port, log file
// and log level are all that is given on its command line, ahead of args.
func (r *Root) StartSSHD(ctx context.Context, args ...string) (*SSHD, error) {
	return r.start(ctx, (*SSHD).stays, args)
}

// StartSSHDPerConnection is StartSSHD for one sshd a connection, as a socket unit
// with Accept=yes starts it; a program of systemd does the same.
func (r *Root) StartSSHDPerConnection(ctx context.Context, args ...string) (*SSHD, error) {
	return r.start(ctx, (*SSHD).perConnection, args)
}

func (r *Root) start(ctx context.Context, how func(*SSHD) []string, args []string) (*SSHD, error) {
	if out, err := r.Command(ctx, append([]string{"/usr/sbin/sshd", "-t"}, args...)...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("sshd -t: %w\n%s", err, tail(string(out), 1000))
	}
	for try := 0; ; try++ {
		s, err := r.startSSHD(ctx, how, args)
		if errors.Is(err, errPortTaken) && try < 5 {
			continue
		}
		return s, err
	}
}

// stays is the command of a daemon.
func (s *SSHD) stays() []string {
	return []string{"/usr/sbin/sshd", "-D", "-E", s.name(),
		"-o", fmt.Sprintf("ListenAddress=%s:%d", s.Host, s.Port), "-o", fmt.Sprintf("Port=%d", s.Port),
		"-o", "PidFile=" + s.pidFile(), "-o", "LogLevel=VERBOSE"}
}

// perConnection is the command of a socket, which logs as the daemon does.
func (s *SSHD) perConnection() []string {
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, s.pidFile(),
		"systemd-socket-activate", "--inetd", "--accept", fmt.Sprintf("--listen=%s:%d", s.Host, s.Port),
		"/usr/sbin/sshd", "-i", "-E", s.name(), "-o", "LogLevel=VERBOSE"}
}

func (s *SSHD) name() string    { return fmt.Sprintf("/var/log/sshd-%d.log", s.Port) }
func (s *SSHD) pidFile() string { return fmt.Sprintf("/run/sshd-%d.pid", s.Port) }

func (r *Root) startSSHD(ctx context.Context, how func(*SSHD) []string, args []string) (*SSHD, error) {
	number, err := port.Free()
	if err != nil {
		return nil, err
	}
	s := &SSHD{Host: "127.0.0.1", Port: number, root: r, done: make(chan struct{})}
	s.log = r.Path(s.name())
	s.cmd = r.Command(context.Background(), append(how(s), args...)...)
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }()
	if err := s.await(ctx); err != nil {
		_ = s.Stop()
		return nil, err
	}
	return s, nil
}

// Addr returns host and port as net.Dial takes them.
func (s *SSHD) Addr() string { return net.JoinHostPort(s.Host, fmt.Sprint(s.Port)) }

// Log returns what sshd has logged so far.
func (s *SSHD) Log() string {
	data, err := os.ReadFile(s.log)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Running reports whether the daemon is still there.
func (s *SSHD) Running() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Stop ends the daemon, not the sessions it started. It may be called twice.
func (s *SSHD) Stop() error {
	var err error
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if s.Running() {
			_, err = s.root.Shell(ctx, "kill $(cat "+s.pidFile()+")")
		}
		select {
		case <-s.done:
		case <-ctx.Done():
			_ = s.cmd.Process.Kill()
			<-s.done
		}
	})
	return err
}

// HostKeys returns the root's public host keys, each "type base64".
func (r *Root) HostKeys() ([]string, error) {
	names, err := filepath.Glob(r.Path("/etc/ssh/ssh_host_*_key.pub"))
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f := strings.Fields(string(data))
		if len(f) < 2 {
			return nil, fmt.Errorf("%s: no public key", name)
		}
		keys = append(keys, f[0]+" "+f[1])
	}
	return keys, nil
}

// await returns when the daemon sends its greeting.
func (s *SSHD) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		if port.Greeted(ctx, s.Addr(), 5*time.Second) {
			return nil
		}
		select {
		case <-s.done:
			if strings.Contains(s.Log(), "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("sshd ended\n%s", tail(s.Log(), 2000))
		case <-ctx.Done():
			return fmt.Errorf("sshd does not answer on %s\n%s", s.Addr(), tail(s.Log(), 2000))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
