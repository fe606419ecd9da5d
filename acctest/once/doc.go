// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package once makes what the lab keeps in its cache: root filesystems, images
// and programs that take a minute or more.
//
// What is there is whole: it got its name by a rename. One program makes it while
// others wait. Linux alone, since it locks with flock(2).
package once
