// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/receive"
)

type receiveOptions struct {
	socket      string
	server      bool
	addr        string
	cert, key   string
	credentials string
	quota       string
	dir         string
	hook        string
	count       int
}

func newReceiveCommand() *cobra.Command {
	var o receiveOptions
	cmd := &cobra.Command{
		Use:         "receive --unix SOCKET [--server] --dir DIR [--exec PROGRAM] [--count N]",
		Annotations: map[string]string{alsoUsed: "totpctl receive --listen ADDR --cert FILE --key FILE --credentials FILE --dir DIR [--exec PROGRAM] [--count N]"},
		Short:       "Receive envelopes at a virtio port, or by HTTPS",
		Long: `Receives envelopes and stores them in DIR as they are: sealed. The server that
sends one is told that it has arrived once it is on this disk for good, not
before.

With --unix it is the host's end of a virtio-serial port, and SOCKET is the unix
socket of the port. The hypervisor makes it and totpctl connects to it, again and
again until it succeeds; with --server totpctl makes it and the hypervisor
connects. For QEMU that is the option server=on and server=off of the character
device:

    -device virtio-serial -chardev socket,id=totp,path=SOCKET,server=on,wait=off
    -device virtserialport,chardev=totp,name=org.totp.enroll.0

With --listen it is the provider's end of the channel http. Servers PUT or POST
to https://ADDR/CLIENT/ID. The file of credentials says who may, on a line for
each:

    CLIENT token-sha256 HASH    it sends a token, of which HASH is the SHA-256
    CLIENT hmac-sha256 KEY      it signs each request

CLIENT is a name that you give to a server, and "*" stands for all that have no
line of their own. Certificate, key and credentials are read again when they
change.

Totpctl runs until it is interrupted, or until it has received N envelopes. Each
is one line on standard error, and starts PROGRAM if you name one, with the
envelope's file as its argument. What is in them only their owners can open.`,
		Example: `    $ totpctl receive --unix /run/vm1-enroll.sock --dir /srv/envelopes/vm1

    $ totpctl receive --unix /run/vm1-enroll.sock --server --dir vm1 --count 1

    $ (umask 077; touch credentials)
    $ printf 'web-1 token-sha256 %s\n' $(printf %s "$TOKEN" | sha256sum | cut -d' ' -f1) >>credentials
    $ totpctl receive --listen :8443 --cert cert.pem --key key.pem --credentials credentials --dir /srv/envelopes`,
		Args: atMost(0),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return receiveEnvelopes(cmd.Context(), o)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.socket, "unix", "", "the unix `SOCKET` of a port")
	f.BoolVar(&o.server, "server", false, "with --unix: make the socket and wait for the hypervisor to connect")
	f.StringVar(&o.addr, "listen", "", "listen for HTTPS at `ADDR`, such as :8443 or 192.0.2.7:443")
	f.StringVar(&o.cert, "cert", "", "with --listen: the certificate, and those up to its authority, in PEM `FILE`")
	f.StringVar(&o.key, "key", "", "with --listen: the certificate's private key in PEM `FILE`")
	f.StringVar(&o.credentials, "credentials", "", "with --listen: who may deliver, in `FILE`")
	f.StringVar(&o.quota, "quota", "1G", "with --listen: the clients of the line * may fill `SIZE` bytes together, with M or G")
	f.StringVar(&o.dir, "dir", "", "store the envelopes in the directory `DIR`")
	f.StringVar(&o.hook, "exec", "", "run `PROGRAM` FILE for each envelope that has arrived")
	f.IntVar(&o.count, "count", 0, "end when `N` envelopes have been received (0: never)")
	return cmd
}

// check finds what is wrong with the options.
func (o receiveOptions) check() error {
	switch {
	case o.socket == "" && o.addr == "":
		return withHints(usageErrorf("--unix or --listen: name the socket of a port, or the address to listen at"),
			"totpctl receive --help tells more")
	case o.socket != "" && o.addr != "":
		return withHints(usageErrorf("--unix %q and --listen %q: only one of them can be", o.socket, o.addr),
			"the side of --unix that makes the socket is --server")
	case o.server && o.socket == "":
		return usageErrorf("--server: has no use without --unix")
	case o.dir == "":
		return usageErrorf("--dir: name the directory for the envelopes")
	case o.count < 0:
		return usageErrorf("--count %d: must not be negative", o.count)
	}
	for _, f := range []struct{ name, value string }{{"--cert", o.cert}, {"--key", o.key}, {"--credentials", o.credentials}} {
		if o.addr != "" && f.value == "" {
			return usageErrorf("%s: name the file; --listen needs it", f.name)
		}
		if o.addr == "" && f.value != "" {
			return usageErrorf("%s %q: has no use without --listen", f.name, f.value)
		}
	}
	if o.addr != "" {
		if _, port, err := net.SplitHostPort(o.addr); err != nil || port == "" {
			return withHints(usageErrorf("--listen %q: must be ADDR:PORT", o.addr), "such as :8443, 192.0.2.7:443 or [2001:db8::7]:443")
		}
	}
	if _, err := parseSize(o.quota); err != nil {
		return usageErrorf("--quota %q: %v", o.quota, err)
	}
	return nil
}

var errSize = errors.New("must be a number of bytes from 1M, such as 500M or 20G")

// parseSize reads a size in bytes, with M for 1024² and G for 1024³.
func parseSize(text string) (int64, error) {
	digits, unit := strings.TrimRight(text, "MG"), int64(1)
	switch strings.TrimPrefix(text, digits) {
	case "":
	case "M":
		unit = 1 << 20
	case "G":
		unit = 1 << 30
	default:
		return 0, errSize
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/unit || n*unit < 1<<20 {
		return 0, errSize
	}
	return n * unit, nil
}

func receiveEnvelopes(ctx context.Context, o receiveOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	quota, err := parseSize(o.quota)
	if err != nil {
		return err
	}
	run := receive.Run
	if o.addr != "" {
		run = receive.Serve
	}
	err = run(ctx, receive.Options{
		Socket: o.socket,
		Listen: o.server,
		HTTP:   receive.HTTP{Addr: o.addr, Cert: o.cert, Key: o.key, Credentials: o.credentials, Quota: quota},
		Dir:    o.dir,
		Hook:   o.hook,
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
	if errors.Is(err, receive.ErrCredential) || errors.Is(err, receive.ErrNoCredential) {
		return fmt.Errorf("--credentials: %w", err)
	}
	return err
}

// logWriter prints the receiver's log as totpctl prints everything.
type logWriter struct{}

func (logWriter) Write(line []byte) (int, error) {
	printf("%s", bytes.TrimRight(bytes.TrimPrefix(line, []byte("receive: ")), "\n"))
	return len(line), nil
}
