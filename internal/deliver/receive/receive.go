// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package receive is the other end of the channels virtio and http: it takes
// envelopes from the UNIX socket of a virtual machine's virtio-serial port, or
// by HTTPS from many machines, and stores them in a directory. The protocol on
// the port is that of package frame; the one over HTTPS is told of by [Serve].
//
// # Promises
//
// What was confirmed is on disk for good: the file, its name and its
// directory have been synchronised before the answer is written. A stored
// envelope is never overwritten; the same one again is confirmed again, another
// one of the same name is refused. File names are made of parts that have been
// checked, and a guest's memory and log use are bounded. Nothing is taken over
// the network without TLS, nor from anybody who has no credential.
//
// # Limits
//
// Whoever can write to the socket, or has a credential, can have envelopes stored
// that nobody asked for, up to a limit for each connection, each client, and, in
// rate and bytes, all clients without a credential of their own. What is
// stored looks like an age file; that it opens, and that it is from the machine
// one thinks, only its recipient can tell. One directory is for one receiver on
// one machine.
package receive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrInUse means that somebody listens on the socket already.
var ErrInUse = errors.New("another program listens there")

// ErrDir means that others than the user who runs this may write to the directory for
// envelopes.
var ErrDir = errors.New("must be a directory of your own that only you can write to")

// Options are the settings of a receiver.
type Options struct {
	// Socket is the path of the UNIX socket, for Run.
	Socket string

	// Listen makes the receiver the side of the socket that listens. Otherwise it
	// connects, waits for a socket that is not there yet, and connects again after
	// the other side went away.
	Listen bool

	// HTTP are the settings for Serve.
	HTTP HTTP

	// Dir is where envelopes are stored, as USER-ID.age, mode 0600. It is made
	// with mode 0700 if it is not there.
	Dir string

	// Hook is a program that is run for each new envelope once it is stored. Its
	// argument is the envelope's file, from the root; its environment has that as
	// TOTP_FILE, and the names as TOTP_CLIENT, TOTP_USER and TOTP_ID. Whether it succeeds changes
	// nothing. One that is due when the receiver is killed is not made up for.
	Hook string

	// Log gets one line for each envelope, and one for each change of the
	// connection. Nil discards them.
	Log io.Writer

	// Once ends the receiver after so many different envelopes have been
	// confirmed. Zero means never.
	Once int

	frameTime time.Duration // how long a frame may take
	stale     time.Duration // the age of what is swept
	mostOfOne int           // connections of one address
	tune      func(*group)
	write     func(f *os.File, data []byte) error
}

// Run receives until ctx is done, whose error it returns then, or until the
// number of envelopes in Once has been confirmed. Nothing that a guest does
// ends it.
func Run(ctx context.Context, o Options) error {
	run := (*receiver).connect
	if o.Listen {
		run = (*receiver).listen
	}
	return receive(ctx, o, run)
}

// receive prepares for run, and cleans up after it.
func receive(ctx context.Context, o Options, run func(*receiver, context.Context) error) error {
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.frameTime == 0 {
		o.frameTime = time.Minute
	}
	if o.mostOfOne == 0 {
		o.mostOfOne = maxOfOne
	}
	if o.write == nil {
		o.write = writeAll
	}
	if o.stale == 0 {
		o.stale = staleTime
	}
	if err := prepare(o.Dir, syncDir); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := &receiver{
		Options: o,
		store:   newStore(o.Dir, o.write),
		done:    func() { cancel(errDone) },
		names:   map[string]bool{},
	}
	if o.tune != nil {
		o.tune(&r.store.groups)
	}
	var err error
	if r.hooks, err = newHooks(o.Hook, r.logf); err != nil {
		return err
	}
	sweeping := make(chan struct{})
	go func() {
		keepSwept(ctx, o.Dir, o.Socket, o.stale)
		close(sweeping)
	}()
	err = run(r, ctx)
	r.hooks.wait()
	cancel(nil)
	<-sweeping
	if context.Cause(ctx) == errDone {
		return nil
	}
	return err
}

const (
	redial       = 250 * time.Millisecond
	maxSessions  = 64
	answerTime   = 10 * time.Second
	maxNew       = 1024 // envelopes that one connection may have stored
	maxComplaint = 100  // log lines about refusals on one connection
)

var errDone = errors.New("received all")

type receiver struct {
	Options
	store *store
	hooks *hooks
	done  func()

	mu    sync.Mutex
	names map[string]bool // confirmed in this run
}

// confirmed counts an envelope and tells whether it was the last one wanted.
func (r *receiver) confirmed(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Once == 0 {
		return false // do not collect names for ever
	}
	r.names[name] = true
	return len(r.names) >= r.Once
}

func (r *receiver) logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.Log, "receive: "+format+"\n", args...)
}

// connect serves one connection after the other.
func (r *receiver) connect(ctx context.Context) error {
	said := ""
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", r.Socket)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return ctx.Err()
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, errPathLength):
			return err
		case err != nil:
			if said != err.Error() {
				said = err.Error()
				r.logf("waiting for the machine: %s", said)
			}
		default:
			said = ""
			r.logf("connected to %q", r.Socket)
			r.serve(ctx, conn)
			if ctx.Err() == nil {
				r.logf("the machine has closed the connection; connecting again")
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(redial):
		}
	}
}

// listen serves connections side by side.
func (r *receiver) listen(ctx context.Context) error {
	l, err := listen(ctx, r.Socket)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	r.logf("listening on %q", r.Socket)

	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxSessions)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := l.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		wg.Go(func() {
			r.serve(ctx, conn)
			<-slots
		})
	}
}

// listen makes the socket. One that a receiver left behind when it was killed
// is replaced. The socket has its mode before it has its name: it is made in a
// directory that no other user can enter, and linked from there, which fails where
// another file has the name.
func listen(ctx context.Context, socket string) (net.Listener, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	switch {
	case err == nil:
		conn.Close()
		return nil, fmt.Errorf("socket %q: %w", socket, ErrInUse)
	case errors.Is(err, errPathLength):
		return nil, err
	}
	if fi, err := os.Lstat(socket); err == nil && fi.Mode()&fs.ModeSocket != 0 {
		if err := os.Remove(socket); err != nil {
			return nil, err
		}
	}
	private, err := os.MkdirTemp(filepath.Dir(socket), socketPrefix+"*") // mode 0700
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	made := filepath.Join(private, socketName)
	l, err := new(net.ListenConfig).Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // it would look for the first name
	if err := errors.Join(os.Chmod(made, 0o600), os.Link(made, socket)); err != nil {
		l.Close()
		return nil, err
	}
	return &namedListener{Listener: l, name: socket}, nil
}

// Where the socket is made. Both are short, since a path of a socket has room for 107 bytes.
const (
	socketPrefix = ".t"
	socketName   = "s"
)

// namedListener removes its socket when it is closed. Each call of Close returns
// when the socket is gone, whichever was first.
type namedListener struct {
	net.Listener
	name string
	once sync.Once
}

func (l *namedListener) Close() (err error) {
	l.once.Do(func() { err = errors.Join(l.Listener.Close(), os.Remove(l.name)) })
	return err
}
