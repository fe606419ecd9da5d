// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// device is an open character device, or what stands for it in a test. No
// call on it outlasts its deadline.
type device interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
	SetReadDeadline(time.Time) error
}

type openFunc func(name string, flag int) (device, error)

// opener opens devices of the machine without waiting for anything.
func opener(t *target.Target) openFunc {
	return func(name string, flag int) (device, error) {
		f, err := t.OpenFile(name, flag|openDevice, 0)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
}

// bound ends every read and write on f when ctx is done.
func bound(ctx context.Context, f device) (stop func(), err error) {
	if deadline, ok := ctx.Deadline(); ok {
		if err := f.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	cancel := context.AfterFunc(ctx, func() { f.SetDeadline(time.Unix(1, 0)) })
	return func() { cancel() }, nil
}

var (
	errNotTaken = errors.New("could not write in time; the other end is stopped or does not read")
	errNoAnswer = errors.New("no answer in time")
	errWentAway = errors.New("the other end went away")
)

func writeError(err error) error { return deviceError(err, errNotTaken) }

func readError(err error) error { return deviceError(err, errNoAnswer) }

func deviceError(err, late error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return late
	case isHangup(err):
		return errWentAway
	}
	return err
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// isHangup tells whether the other end is not there: an end of file on a
// virtio port, an input/output error on a terminal.
func isHangup(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
