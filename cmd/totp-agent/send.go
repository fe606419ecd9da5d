// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// sendVerb makes one attempt for totp-agent deliver, without any privilege.
func sendVerb(*flag.FlagSet) func(env, []string) error {
	return func(e env, args []string) error {
		if err := none(args); err != nil {
			return err
		}
		return deliver.Serve(e, os.Stdin, os.Stdout)
	}
}

// sender opens a connection to a process that speaks to the network: systemd starts
// totp-send@.service for it. Where systemd does not run, this process starts one.
func sender(t *target.Target) func(context.Context) (deliver.SenderConn, error) {
	return func(ctx context.Context) (deliver.SenderConn, error) {
		conn, err := dialSender(ctx)
		if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
			return conn, err
		}
		if !t.Booted() {
			return spawnSender(ctx)
		}
		if _, err := t.Run(ctx, target.Systemctl, "start", target.SendSocket); err != nil {
			return nil, err
		}
		return dialSender(ctx)
	}
}

func dialSender(ctx context.Context) (deliver.SenderConn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", target.SendPath)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// nobody is the user and the group without rights of every Linux system.
const nobody = 65534

// spawnSender starts the process as nobody, with nothing of this one's but one end
// of a pair of sockets.
func spawnSender(ctx context.Context) (deliver.SenderConn, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "sender"), os.NewFile(uintptr(fds[1]), "sender")
	defer ours.Close() // FileConn has its own
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "send")
	cmd.Dir, cmd.Env = "/", []string{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, theirs, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, err
	}
	return &spawned{UnixConn: conn.(*net.UnixConn), cmd: cmd}, nil
}

// spawned is a connection to a process that ends with it.
type spawned struct {
	*net.UnixConn
	cmd  *exec.Cmd
	once sync.Once
}

func (s *spawned) Close() error {
	err := s.UnixConn.Close()
	s.once.Do(func() {
		_ = s.cmd.Process.Kill() // the reply is read, or not waited for
		_ = s.cmd.Wait()
	})
	return err
}
