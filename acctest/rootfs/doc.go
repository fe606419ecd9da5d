// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package rootfs is the small part of the lab: a Debian root filesystem in a
// directory, with its real sshd on a loopback port.
//
// It has no kernel of its own and no systemd, so it says nothing about booting;
// cloud-init is there only to be called stage by stage. What it does have is
// real: the distribution's packages, apt, dpkg, PAM and sshd. A root is there in seconds where a virtual machine takes
// minutes.
//
// # Promises
//
// Every root is a fresh layer in memory over a base that is made once and
// cached; nothing a test does reaches the base or another root. Processes run
// in mount, PID, IPC and UTS namespaces that end with the program that made
// them, also when it is killed: no mount, no file and no process is left behind.
// The network is the host's, for apt and for the loopback port, and nothing
// listens on another address.
//
// # Limits
//
// It needs Linux, root, mmdebstrap and the right to make namespaces;
// [Available] says which is missing. As the layer is in memory, nothing can be
// learned here about what survives a power cut.
package rootfs
