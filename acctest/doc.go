// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package acctest holds the tests that run the agent and the plugin as their
// users do, against a real Debian, in the rootfs lab. There is nothing in it but
// tests; the labs are in the packages below.
//
// The tests need root and the packages that acctest/setup installs. Elsewhere
// they are skipped and say why, except where CI=true is set.
package acctest
