// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build !linux

package selftest

import (
	"context"
	"errors"
	"io"
)

func outside(context.Context, Options, order) ([]Row, error) { return nil, errors.ErrUnsupported }

// Inside is the part of the self-test that runs in namespaces, which only Linux
// has.
func Inside(io.Reader, io.Writer) error { return errors.ErrUnsupported }
