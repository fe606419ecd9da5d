// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

var (
	// ErrHostKey means that a line is no public host key.
	ErrHostKey = errors.New("is no public host key")

	// ErrNoHostKey means that a card has no whole host key to write down.
	ErrNoHostKey = errors.New("the card holds no whole host key, only fingerprints")

	// ErrAddress means that a string is no address of a server.
	ErrAddress = errors.New("is no host name or IP address, with or without port")
)

const fingerprintPrefix = "SHA256:"

// HostKey makes a HostKeys entry of a public key as *.pub files have it:
//
//	ssh-ed25519 SHA256:FINGERPRINT AAAA…
//
// The fingerprint is what ssh shows at the first connection; the key itself,
// which known_hosts needs, is left out if it is long, as RSA keys are. The
// error is [ErrHostKey].
func HostKey(line string) (string, error) {
	f := strings.Fields(line)
	if len(f) < 2 || !validKeyType(f[0]) {
		return "", fmt.Errorf("host key %.40q: %w", line, ErrHostKey)
	}
	blob, ok := keyBlob(f[0], f[1])
	if !ok {
		return "", fmt.Errorf("host key of type %s: %w", f[0], ErrHostKey)
	}
	entry := f[0] + " " + fingerprint(blob)
	const longBlob = 160 // bytes; ECDSA P-521 has 172 characters of base64 for 129 bytes
	if len(blob) <= longBlob {
		entry += " " + f[1]
	}
	return entry, nil
}

// KnownHosts returns the lines for a known_hosts file (sshd(8)) by which ssh
// trusts the server at that address, and asks nothing, from the first
// connection on. The address is a host name or IP address as it will be given
// to ssh, with a port if it is not 22: 203.0.113.7, web-1:2222, [2001:db8::1]:22.
// Errors are [ErrAddress] and [ErrNoHostKey].
func (c Card) KnownHosts(addr string) ([]string, error) {
	host, ok := knownHost(addr)
	if !ok {
		return nil, fmt.Errorf("address %.80q: %w", addr, ErrAddress)
	}
	var lines []string
	for _, k := range c.HostKeys {
		if typ, _, blob, ok := splitHostKey(k); ok && blob != "" {
			lines = append(lines, host+" "+typ+" "+blob)
		}
	}
	if len(lines) == 0 {
		return nil, ErrNoHostKey
	}
	return lines, nil
}

// knownHost writes an address as ssh looks it up: in lower case, in brackets
// with its port if that is not 22.
func knownHost(addr string) (string, bool) {
	host, port := addr, "22"
	if strings.HasPrefix(addr, "[") || strings.Count(addr, ":") == 1 {
		var err error
		if host, port, err = net.SplitHostPort(addr); err != nil {
			if !strings.HasPrefix(addr, "[") || !strings.HasSuffix(addr, "]") {
				return "", false
			}
			host, port = addr[1:len(addr)-1], "22"
		}
	}
	host = strings.ToLower(host)
	n, err := strconv.ParseUint(port, 10, 16)
	// Whatever else would be read as a pattern, a list, a marker or a comment.
	if err != nil || n == 0 || host == "" || len(host) > 253 || !only(host, letters+digits+".:_%-") || host[0] == '-' {
		return "", false
	}
	if n == 22 {
		return host, true
	}
	return "[" + host + "]:" + strconv.FormatUint(n, 10), true
}

// splitHostKey takes a HostKeys entry apart. It is not ok if the fingerprint is
// not that of the key.
func splitHostKey(entry string) (typ, fp, blob string, ok bool) {
	typ, rest, _ := strings.Cut(entry, " ")
	fp, blob, more := strings.Cut(rest, " ")
	sum, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimPrefix(fp, fingerprintPrefix))
	if !validKeyType(typ) || !strings.HasPrefix(fp, fingerprintPrefix) || err != nil || len(sum) != sha256.Size {
		return "", "", "", false
	}
	if !more {
		return typ, fp, "", true
	}
	b, ok := keyBlob(typ, blob)
	return typ, fp, blob, ok && fingerprint(b) == fp
}

// validKeyType takes the names of RFC 4250 and OpenSSH's own (name@domain), the
// longest of which has 34 characters.
func validKeyType(s string) bool {
	return s != "" && len(s) <= 40 && only(s, letters+digits+"-@.")
}

// keyBlob decodes a public key (RFC 4253 section 6.6), which begins with the
// name of its type.
func keyBlob(typ, s string) ([]byte, bool) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) < 4 || len(b) > 4096 || strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	n := binary.BigEndian.Uint32(b)
	return b, int64(n) < int64(len(b)-4) && bytes.Equal(b[4:4+n], []byte(typ))
}

func fingerprint(blob []byte) string {
	sum := sha256.Sum256(blob)
	return fingerprintPrefix + base64.RawStdEncoding.EncodeToString(sum[:])
}
