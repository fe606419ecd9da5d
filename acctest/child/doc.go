// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package child starts programs that do not outlive this one.
//
// A virtual machine or a build that goes on after its test was killed holds
// ports, files and memory for ever. The kernel sends a child that is started
// here its signal when this process ends, however it ends. What such a child
// has started itself is its own affair. It needs Linux.
package child
