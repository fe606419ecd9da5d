// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build !embed_agent

package agentbin

var packed map[string][]byte
