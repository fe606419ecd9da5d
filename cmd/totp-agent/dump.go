// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import "golang.org/x/sys/unix"

// undumpable keeps this process out of core dumps, and its memory and /proc/PID/root
// from other processes of root that have no CAP_SYS_PTRACE, prctl(2). A kernel that
// refuses is no reason to stop: the units say the same with LimitCORE=0.
func undumpable() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
