// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package vm is the large part of the lab: virtual machines of a Debian with
// cloud-init, under QEMU.
//
// [BuildBase] makes an image of Debian 11, 12 or 13 out of Debian's own packages, once, and caches
// it; [Start] boots a disk made from it, with a NoCloud seed, a console log, a
// virtio-serial port on a UNIX socket and SSH on a loopback port. [Open] reads a
// disk that no machine runs from.
//
// # Promises
//
// The machine's SSH port is on 127.0.0.1 alone. No QEMU outlives the program
// that started it, unless it was started to stay. [Machine.Cut] is a power cut:
// what the guest had not written is gone. A disk is read without mounting it or
// changing a byte of it. Whether KVM works is found out by booting something.
//
// # Limits
//
// It needs Linux, root (to make the image) and Debian's mmdebstrap, QEMU,
// e2fsprogs and xorriso; [Available] says which is missing. The image has no boot loader: QEMU is
// given its kernel. Without KVM a boot takes about half a minute on an idle
// machine. A power cut does not lose what the guest has handed to its disk,
// flushed or not.
package vm
