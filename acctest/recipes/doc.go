// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package recipes tests docs/recipes.md: each recipe for the channel http as it
// stands there, with a test's names and keys, against the server that it names.
// There is nothing in it but tests.
//
// The servers are pinned: versitygw and the SDK that signs for it by the module
// s3, Azurite and its SDK by the lock file in azure; webhook and nginx are
// Debian's. Where one cannot be had its test is skipped, unless CI=true is set.
package recipes
