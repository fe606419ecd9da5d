// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package main

import (
	"context"
	"io"
)

// servers: the tests that ask them run on Linux only.
func servers(context.Context, io.Writer) error { return nil }
