// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package scenario goes the whole way from a stock Debian image to a login with
// key and code, with nothing simulated: Packer, QEMU, Debian, cloud-init, sshd,
// PAM, OpenSSH's and PuTTY's clients, age.
//
// [Run] is what the demo shows and what the acceptance test begins with; [Prove] is
// the short way for the other systems.
// [Lab] and [Instance] are its parts, for tests that go on from there. What needs no
// Packer build, kernel, disk, firewall or virtio port is in acctest/boots instead, where
// a boot takes seconds.
//
// # Promises
//
// An owner's card is opened with nothing but the envelope and the owner's
// identity, by the programs that owners have. A table is as expected only if
// every attempt was answered by the server for the expected reason. A search
// that did not find the secrets in the PAM state files, where they are, has
// failed.
//
// # Limits
//
// It needs what package vm needs, and the network: Debian's mirror, and Go's
// module proxy the first time.
package scenario
