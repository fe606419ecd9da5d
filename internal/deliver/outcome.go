// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"errors"
	"time"
)

// What a channel's Send says of a failure besides that it failed. An error
// without any of it is one that may have happened before or after the other
// end got the envelope.

var (
	// ErrTaken means that something is in the place where the envelope was to go.
	// After an attempt of our own that may be the envelope; without one, somebody
	// else was there.
	ErrTaken = errors.New("something is there already")

	// errForeign beside ErrTaken means that what is there has been seen, and is not
	// what we have tried to put there.
	errForeign = errors.New("and it is not this card")
)

// unsent is an error after which the other end certainly has not got the
// envelope.
type unsent struct{ error }

func (e unsent) Unwrap() error { return e.error }

// Unsent says of err that the other end certainly has not got the envelope.
func Unsent(err error) error { return unsent{err} }

// maySent reports whether the other end may have the envelope after a Send that
// returned err.
func maySent(err error) bool {
	_, certain := errors.AsType[unsent](err)
	return err != nil && !certain
}

// later is an error with the other end's wish for when to try again.
type later struct {
	error
	after time.Duration
}

func (e later) Unwrap() error { return e.error }

// Later says of err that the other end asks for a pause before the next try.
func Later(err error, after time.Duration) error { return later{err, after} }

// wish returns the pause that err asks for, zero for none.
func wish(err error) time.Duration {
	if l, ok := errors.AsType[later](err); ok {
		return min(max(l.after, 0), longestWish)
	}
	return 0
}

// longestWish is the longest pause that another machine may ask for.
const longestWish = 24 * time.Hour
