// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package boots tests what happens when a server boots: it bakes images of Debian 11,
// 12 and 13 with the real agent and boots instances of them in the boot lab, acctest/nspawn.
// There is nothing in it but tests.
//
// The tests need root and the packages that acctest/setup installs. Elsewhere they are
// skipped and report why, except where CI=true is set.
package boots
