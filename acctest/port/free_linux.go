// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package port

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Free returns a port of 127.0.0.1 that nobody listens on. Until this process ends
// the system gives it to no other program that takes any port: it stays bound here, in
// the way that lets a program listen that names it, as servers do, with SO_REUSEADDR
// (socket(7)).
func Free() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("a port for a server: %w", err)
	}
	port, err := bind(fd)
	if err != nil {
		_ = unix.Close(fd)
		return 0, fmt.Errorf("a port for a server: %w", err)
	}
	return port, nil
}

func bind(fd int) (int, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, err
	}
	addr, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	return addr.(*unix.SockaddrInet4).Port, nil
}
