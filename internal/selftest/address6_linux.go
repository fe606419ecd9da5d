// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package selftest

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// addAddress6 gives the loopback interface an IPv6 address, by the request of
// netdevice(7) that takes a struct in6_ifreq.
func addAddress6(a netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("address %s: %w", a, err)
	}
	defer unix.Close(fd)
	const loIndex = 1 // always, in a new network namespace
	request := struct {
		addr   [16]byte
		length uint32
		index  int32
	}{a.As16(), 128, loIndex}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFADDR, uintptr(unsafe.Pointer(&request)))
	if errno != 0 && errno != unix.EEXIST {
		return fmt.Errorf("address %s: %w", a, errno)
	}
	return nil
}
