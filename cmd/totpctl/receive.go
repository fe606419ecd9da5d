// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/receive"
)

type receiveOptions struct {
	socket string
	listen bool
	dir    string
	count  int
}

func newReceiveCommand() *cobra.Command {
	var o receiveOptions
	cmd := &cobra.Command{
		Use:   "receive --unix SOCKET --dir DIR [--listen] [--count N]",
		Short: "Receive envelopes at the host's end of a virtio port",
		Long: `Receives envelopes at the host's end of a virtio-serial port, and stores them in
DIR as they are: sealed. The server is told that an envelope has arrived once
it is on this disk for good, not before.

SOCKET is the unix socket of the port. The hypervisor makes it and totpctl
connects to it, again and again until it succeeds; with --listen totpctl makes
it and the hypervisor connects. For QEMU that is the option server=on and
server=off of the character device:

    -device virtio-serial -chardev socket,id=totp,path=SOCKET,server=on,wait=off
    -device virtserialport,chardev=totp,name=org.totp.enroll.0

Totpctl runs until it is interrupted, or until it has received N envelopes. Each
is one line on standard error. What is in them only their owners can open.`,
		Example: `    $ totpctl receive --unix /run/vm1-enroll.sock --dir /srv/envelopes/vm1

    $ totpctl receive --unix /run/vm1-enroll.sock --listen --dir vm1 --count 1`,
		Args: atMost(0),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return receiveEnvelopes(cmd.Context(), o)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.socket, "unix", "", "the unix `SOCKET` of the port")
	f.BoolVar(&o.listen, "listen", false, "make the socket and wait for the hypervisor to connect")
	f.StringVar(&o.dir, "dir", "", "store the envelopes in the directory `DIR`")
	f.IntVar(&o.count, "count", 0, "end when `N` envelopes have been received (0: never)")
	return cmd
}

func receiveEnvelopes(ctx context.Context, o receiveOptions) error {
	switch {
	case o.socket == "":
		return usageErrorf("--unix: name the socket of the port")
	case o.dir == "":
		return usageErrorf("--dir: name the directory for the envelopes")
	case o.count < 0:
		return usageErrorf("--count %d: must not be negative", o.count)
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := receive.Run(ctx, receive.Options{
		Socket: o.socket,
		Listen: o.listen,
		Dir:    o.dir,
		Log:    logWriter{},
		Once:   o.count,
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		if o.count > 0 {
			return errors.New("interrupted before all the envelopes had arrived")
		}
		printf("interrupted")
		return nil
	}
	return err
}

// logWriter prints the receiver's log as totpctl prints everything.
type logWriter struct{}

func (logWriter) Write(line []byte) (int, error) {
	printf("%s", bytes.TrimRight(bytes.TrimPrefix(line, []byte("receive: ")), "\n"))
	return len(line), nil
}
