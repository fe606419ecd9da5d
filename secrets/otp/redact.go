// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package otp

import "fmt"

const (
	hiddenEnrollment = "otp.Enrollment(hidden)"
	hiddenState      = "otp.State(hidden)"
)

// String returns a placeholder.
func (Enrollment) String() string { return hiddenEnrollment }

// GoString returns a placeholder.
func (Enrollment) GoString() string { return hiddenEnrollment }

// Format writes a placeholder, whatever the verb.
func (Enrollment) Format(s fmt.State, _ rune) { fmt.Fprint(s, hiddenEnrollment) }

// MarshalText returns a placeholder, so that encoders and structured logs
// cannot carry the secret.
func (Enrollment) MarshalText() ([]byte, error) { return []byte(hiddenEnrollment), nil }

// String returns a placeholder.
func (State) String() string { return hiddenState }

// GoString returns a placeholder.
func (State) GoString() string { return hiddenState }

// MarshalText returns a placeholder.
func (State) MarshalText() ([]byte, error) { return []byte(hiddenState), nil }
