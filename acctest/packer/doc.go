// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package packer runs a real Packer, and plugins built here, apart from what the
// machine's user has of either.
//
// A packer on PATH is taken where it is 1.11 or newer; otherwise the version
// pinned in acctest/tools/go.mod is built from its module and cached. A QEMU plugin
// that the user has installed is taken likewise, or else the pinned one built.
//
// # Promises
//
// Packer sees only the plugins that were installed through its [Packer] and no
// configuration of the user; variables of the user's environment that steer
// Packer are left out. It asks no server for updates. When this process ends,
// Packer is interrupted, so that it removes what it has started.
//
// # Limits
//
// It needs Linux. Building needs the network, or a module cache that has the
// sources.
package packer
