// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"context"
	"net"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/screen"
)

// LogIn logs in on the serial console as [screen.LogIn] does.
func (m *Machine) LogIn(ctx context.Context, password, command string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.keyboard())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return screen.LogIn(ctx, conn, password, command)
}
