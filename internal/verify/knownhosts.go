// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"crypto/hmac"
	sha "crypto/sha1" // of hashed names
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
)

// ErrKnownHosts means that a known_hosts file cannot be used.
var ErrKnownHosts = errors.New("known_hosts")

var (
	errKnownLine   = errors.New("malformed line")
	errKnownType   = errors.New("unsupported key type")
	errNoKnownLine = errors.New("has no line of known_hosts")
)

// KnownHosts are the host keys in files of the format known_hosts, see sshd(8). Lines of
// certificate authorities are not among them.
type KnownHosts struct {
	lines   []knownLine
	revoked map[string]KnownKey
	skipped []error
}

// KnownKey is a host key in a known_hosts file.
type KnownKey struct {
	File string
	Line int // from 1
	Key  ssh.PublicKey
}

type knownLine struct {
	KnownKey
	match func(host, port string) bool
}

// ReadKnownHosts reads files. As ssh does, it skips lines that it cannot read, see
// [KnownHosts.Skipped]. Only a line that revokes a key must not be skipped: the error,
// ErrKnownHosts, is for such a line, for a file without any line of known_hosts, and for
// one that cannot be read.
func ReadKnownHosts(files ...string) (*KnownHosts, error) {
	k := &KnownHosts{revoked: make(map[string]KnownKey)}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if path := new(os.PathError); errors.As(err, &path) {
			err = path.Err
		}
		if err == nil {
			err = k.read(file, string(text))
		}
		if err != nil {
			return nil, fmt.Errorf("%w: file %q: %w", ErrKnownHosts, file, err)
		}
	}
	return k, nil
}

func (k *KnownHosts) read(file, text string) error {
	n, found, bad := 0, false, error(nil)
	for line := range strings.Lines(text) {
		n++
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n", r) })
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		marker := ""
		if strings.HasPrefix(words[0], "@") {
			marker, words = words[0], words[1:]
		}
		match, key, err := parseKnownLine(marker, words)
		if err != nil {
			err = fmt.Errorf("line %d: %w", n, err)
		}
		known := KnownKey{File: file, Line: n, Key: key}
		switch {
		case errors.Is(err, errKnownType):
			// No server can show such a key to this program.
			k.skipped = append(k.skipped, fmt.Errorf("file %q: %w", file, err))
			found = true
		case err != nil && marker == "@revoked":
			return fmt.Errorf("%w: skipping it could accept a revoked key", err)
		case err != nil:
			k.skipped = append(k.skipped, fmt.Errorf("file %q: %w", file, err))
			if bad == nil {
				bad = err
			}
		default:
			found = true
			switch marker {
			case "@revoked":
				k.revoked[string(key.Marshal())] = known
			case "":
				k.lines = append(k.lines, knownLine{known, match})
			}
		}
	}
	if bad != nil && !found {
		return fmt.Errorf("%w: %w", errNoKnownLine, bad)
	}
	return nil
}

// parseKnownLine reads the words of a line after its marker.
func parseKnownLine(marker string, words []string) (match func(host, port string) bool, key ssh.PublicKey, err error) {
	if len(words) < 3 || marker != "" && marker != "@revoked" && marker != "@cert-authority" {
		return nil, nil, errKnownLine
	}
	blob, err := base64.StdEncoding.DecodeString(words[2])
	if err != nil || blobType(blob) != words[1] {
		return nil, nil, errKnownLine
	}
	if match, err = hostMatcher(words[0]); err != nil {
		return nil, nil, err
	}
	if key, err = ssh.ParsePublicKey(blob); err != nil {
		if knownType(words[1]) {
			return nil, nil, errKnownLine
		}
		return nil, nil, fmt.Errorf("%w %.60q", errKnownType, words[1])
	}
	return match, key, nil
}

// blobType returns the type that a key in its wire format says it is of.
func blobType(blob []byte) string {
	if len(blob) < 4 || uint64(binary.BigEndian.Uint32(blob)) > uint64(len(blob)-4) {
		return ""
	}
	return string(blob[4 : 4+binary.BigEndian.Uint32(blob)])
}

// knownType reports whether this program reads keys of a type.
func knownType(name string) bool {
	for _, a := range append(ssh.SupportedAlgorithms().PublicKeyAuths, ssh.InsecureAlgorithms().PublicKeyAuths...) {
		if a == name {
			return true
		}
	}
	return name == ssh.KeyAlgoRSA
}

// hostMatcher returns what compares hosts with the first field of a line: patterns
// separated by commas, or one hashed name.
func hostMatcher(field string) (func(host, port string) bool, error) {
	if strings.HasPrefix(field, "|") {
		return hashMatcher(field)
	}
	type pattern struct {
		negated    bool
		host, port string
	}
	var patterns []pattern
	for text := range strings.SplitSeq(strings.ToLower(field), ",") {
		if text == "" {
			continue
		}
		p := pattern{port: "22"}
		text, p.negated = strings.CutPrefix(text, "!")
		p.host = text
		if host, port, err := net.SplitHostPort(text); err == nil {
			p.host, p.port = host, port
		} else if text == "" || text[0] == '[' {
			return nil, errKnownLine
		}
		patterns = append(patterns, p)
	}
	return func(host, port string) bool {
		matched := false
		for _, p := range patterns {
			if p.port == port && wildcard(p.host, host) {
				if p.negated {
					return false
				}
				matched = true
			}
		}
		return matched
	}, nil
}

// hashMatcher is for a name in the form of ssh-keygen -H: |1|SALT|HMAC-SHA1.
func hashMatcher(field string) (func(host, port string) bool, error) {
	parts := strings.Split(field, "|")
	if len(parts) != 4 || parts[1] != "1" {
		return nil, errKnownLine
	}
	salt, err1 := base64.StdEncoding.DecodeString(parts[2])
	sum, err2 := base64.StdEncoding.DecodeString(parts[3])
	if err1 != nil || err2 != nil {
		return nil, errKnownLine
	}
	return func(host, port string) bool {
		if port != "22" {
			host = "[" + host + "]:" + port
		}
		mac := hmac.New(sha.New, salt)
		mac.Write([]byte(host))
		return hmac.Equal(mac.Sum(nil), sum)
	}, nil
}

// wildcard compares a name with a pattern, in which * is any text and ? any byte.
func wildcard(pattern, name string) bool {
	star, from := -1, 0
	p, n := 0, 0
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, from = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p++
			n++
		case star >= 0:
			from++
			p, n = star+1, from
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// Skipped returns an error for each line that could not be read.
func (k *KnownHosts) Skipped() []error { return k.skipped }

// Keys returns the keys of a host, HOST:PORT.
func (k *KnownHosts) Keys(addr string) []KnownKey {
	host, port, err := net.SplitHostPort(strings.ToLower(addr))
	if err != nil {
		return nil
	}
	var keys []KnownKey
	for _, l := range k.lines {
		if l.match(host, port) {
			keys = append(keys, l.KnownKey)
		}
	}
	return keys
}

// Revoked returns the line that revokes a key, for whatever host.
func (k *KnownHosts) Revoked(key ssh.PublicKey) (KnownKey, bool) {
	r, ok := k.revoked[string(key.Marshal())]
	return r, ok
}
