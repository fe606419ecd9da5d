// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package faults runs a program and stops it, or fails it, at one of its
// state-changing system calls.
//
// [Run] without a fault lists the calls: [Call] by [Call], counted over all threads
// and all processes of the program together. [Call.Faults] lists what can happen at a
// call: the program is killed before or after it, half of a write reaches the disk, or
// the call fails, once or from then on. [Run] with such a fault makes it happen. The
// program is not changed and knows nothing of this, so a new step of it is covered by
// tests that exist.
//
// [Copy] is a machine for one such run. It costs a few mounts, and knows the files that
// the run has changed.
//
// # How it works
//
// The tracer is a ptrace(2) tracer. It follows all descendants of the command and counts
// the calls of the processes that run the program's own file. It needs Linux 5.3 on amd64,
// and no right beyond that to trace its children.
//
// # Limits
//
// The order of calls of parallel threads differs between runs: the call of a number in
// one run can be another call in the next. [Result.At] is the call that was hit. What is
// killed is killed with all its descendants, as systemd does; no power is cut, so what was
// not synced is still there.
package faults
