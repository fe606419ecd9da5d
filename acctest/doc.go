// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package acctest holds the tests that run the agent and the plugin as their
// users do, against a real Debian, in the rootfs lab. There is nothing in it but
// tests; the labs are in the packages below:
//
//   - rootfs: a Debian root in a directory with its sshd. It takes a second, and does
//     not boot.
//   - nspawn: the same root booted by systemd-nspawn, with systemd, cloud-init and
//     units. It takes seconds. Package boots has its tests.
//   - vm: a virtual machine, for what needs a kernel, a disk or a virtio port. It takes
//     minutes without KVM. Package scenario has its tests.
//
// Package faults stops or fails a command of such a root at one of its system calls.
//
// The tests need root and the packages that acctest/setup installs. Elsewhere
// they are skipped and say why, except where CI=true is set.
package acctest
