// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"net"
	"net/netip"
	"sync"
)

// crowd is a listener that takes so many connections of one address at a time, so
// that nobody alone can hold all that the server has.
type crowd struct {
	net.Listener
	most   int
	refuse func(from netip.Prefix)

	mu   sync.Mutex
	open map[netip.Prefix]int
}

func (l *crowd) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := origin(c)
		if l.count(from, 1) {
			return &member{c, sync.OnceFunc(func() { l.count(from, -1) })}, nil
		}
		c.Close()
		l.refuse(from)
	}
}

// count adds n, one or minus one, unless there are too many then.
func (l *crowd) count(from netip.Prefix, n int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.open[from] + n
	if now > l.most {
		return false
	}
	l.open[from] = now
	if now == 0 {
		delete(l.open, from)
	}
	return true
}

// member is a connection that leaves the crowd when it is closed.
type member struct {
	net.Conn
	leave func()
}

func (m *member) Close() error {
	m.leave()
	return m.Conn.Close()
}

// origin is where a connection comes from: an address, and of IPv6 the network of 64
// bits that one host may have all of.
func origin(c net.Conn) netip.Prefix {
	ap, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	addr := ap.Addr().Unmap()
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.WithZone("").Prefix(bits)
	return p
}
