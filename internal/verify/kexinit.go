// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"sync"
)

// hello is what an SSH server says of itself before anything is encrypted: its
// version, and the algorithms it offers. x/crypto/ssh keeps the latter to
// itself.
type hello struct {
	before                   []string // the first lines of a server that has not said its version
	version                  string
	kex, hostKeys            []string
	clientCiphers, ciphers   []string // client to server, server to client
	clientMACs, macs         []string
	clientCompression, compr []string
}

var (
	// errShort means that more bytes are needed.
	errShort = errors.New("cut off")

	// errHello means that the bytes are not what an SSH server begins with.
	errHello = errors.New("not the beginning of an SSH connection")
)

const (
	maxVersion   = 255   // RFC 4253 section 4.2, with the line's end
	maxLines     = 1024  // ahead of the version
	maxPacket    = 35000 // RFC 4253 section 6.1
	msgKexInit   = 20    // RFC 4250 section 4.1.2
	maxAlgorithm = 64    // RFC 4251 section 6
	maxBefore    = 3     // lines ahead of the version that are kept
	maxHello     = maxLines*maxVersion + maxPacket
)

// parseHello reads the version (RFC 4253 section 4.2) and the first packet, which
// is SSH_MSG_KEXINIT in clear text (sections 6 and 7.1). Where only the version is
// there yet, it returns that with errShort.
func parseHello(b []byte) (hello, error) {
	var h hello
	for range maxLines {
		line, rest, ok := bytes.Cut(b, []byte("\n"))
		if ok && len(line) < maxVersion && bytes.HasPrefix(line, []byte("SSH-")) {
			h.version, h.before = strings.TrimSuffix(string(line), "\r"), nil
			b = rest
			break
		}
		// Lines ahead of the version are allowed.
		if text := strings.TrimSpace(string(line[:min(len(line), maxVersion)])); text != "" && len(h.before) < maxBefore {
			h.before = append(h.before, text)
		}
		if len(line) >= maxVersion {
			return h, errHello
		}
		if !ok {
			return h, errShort
		}
		b = rest
	}
	if !strings.HasPrefix(h.version, "SSH-2.0-") && !strings.HasPrefix(h.version, "SSH-1.99-") {
		return h, errHello
	}
	if len(b) < 5 {
		return h, errShort
	}
	length, padding := uint64(binary.BigEndian.Uint32(b)), uint64(b[4])
	if length > maxPacket || padding+1 >= length {
		return h, errHello
	}
	if uint64(len(b)) < 4+length {
		return h, errShort
	}
	return h, h.parseKexInit(b[5 : 4+length-padding])
}

func (h *hello) parseKexInit(b []byte) error {
	const cookie = 16
	if len(b) < 1+cookie || b[0] != msgKexInit {
		return errHello
	}
	b = b[1+cookie:]
	var languages []string
	for _, to := range []*[]string{&h.kex, &h.hostKeys, &h.clientCiphers, &h.ciphers, &h.clientMACs, &h.macs,
		&h.clientCompression, &h.compr, &languages, &languages} {
		if len(b) < 4 || uint64(binary.BigEndian.Uint32(b)) > uint64(len(b)-4) {
			return errHello
		}
		n := binary.BigEndian.Uint32(b)
		names := string(b[4 : 4+n])
		b = b[4+n:]
		*to = nil
		if names == "" {
			continue
		}
		*to = strings.Split(names, ",")
		for _, name := range *to {
			if !plainName(name) {
				return errHello
			}
		}
	}
	// first_kex_packet_follows and a reserved number.
	if len(b) != 5 {
		return errHello
	}
	return nil
}

// plainName tells whether a name is one of RFC 4251 section 6.
func plainName(name string) bool {
	return name != "" && len(name) <= maxAlgorithm &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' })
}

// recorder keeps what a server says first, for parseHello.
type recorder struct {
	net.Conn

	mu   sync.Mutex
	seen []byte
	full bool
	got  hello
	err  error
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.full && n > 0 {
		r.seen = append(r.seen, p[:n]...)
		r.got, r.err = parseHello(r.seen)
		if !errors.Is(r.err, errShort) || len(r.seen) > maxHello {
			r.full, r.seen = true, nil
		}
	}
	return n, err
}

// hello returns what the server said of itself, as far as it did.
func (r *recorder) hello() (hello, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got.version == "" && r.err == nil {
		return r.got, errShort
	}
	return r.got, r.err
}
