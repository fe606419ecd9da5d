// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/verify"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// errOtherKey is returned where a known_hosts file has another key of the same
// type for the host.
var errOtherKey = errors.New("has another key of this host")

// checkHost tells whether --host can be an address, before a card is there.
func checkHost(host string) error {
	if _, err := (card.Card{}).KnownHosts(host); errors.Is(err, card.ErrAddress) {
		return withHints(usageErrorf("--host %q: %w", host, card.ErrAddress),
			"such as 192.0.2.7, server.example:2222, 2001:db8::7 or [2001:db8::7]:2222")
	}
	return nil
}

// writeKnownHosts prints the lines for the host keys on the card, or adds those
// that are missing to a file.
func (o openOptions) writeKnownHosts(c card.Card) error {
	lines, err := c.KnownHosts(o.host)
	if errors.Is(err, card.ErrNoHostKey) {
		return withHints(err, "compare the fingerprint that ssh shows at the first connection with the one on the card")
	}
	if err != nil {
		return err
	}
	if o.knownHosts == "-" {
		return writeStdout([]byte(strings.Join(lines, "\n") + "\n"))
	}
	missing, err := missingLines(o.knownHosts, lines)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := appendLines(o.knownHosts, missing); err != nil {
			return err
		}
	}
	printf("added %s of %s to %q, %d were there", plural(len(missing), "host key"), pattern(lines[0]), o.knownHosts, len(lines)-len(missing))
	return nil
}

// missingLines returns the lines that a known_hosts file does not have yet, in
// plain or hashed form. A file that has another key of the same type for the
// host is left alone: that is what known_hosts is for.
func missingLines(name string, lines []string) ([]string, error) {
	if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) {
		return lines, nil
	}
	known, err := readKnownHosts(name)
	if err != nil {
		return nil, withHints(err, "--known-hosts - prints the lines and leaves the file alone")
	}
	var missing []string
	for _, line := range lines {
		_, _, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
		if err != nil {
			return nil, fmt.Errorf("host key: %w", err)
		}
		host := pattern(line)
		if r, ok := known.Revoked(key); ok {
			return nil, fmt.Errorf("file %q: line %d revokes the host key on the card, %s %s", name, r.Line, key.Type(), ssh.FingerprintSHA256(key))
		}
		keys := known.Keys(lookup(host))
		if slices.ContainsFunc(keys, func(k verify.KnownKey) bool { return bytes.Equal(k.Key.Marshal(), key.Marshal()) }) {
			continue
		}
		for _, k := range keys {
			if k.Key.Type() == key.Type() {
				return nil, withHints(fmt.Errorf("file %q: line %d %w: %s %s, where the card says %s",
					name, k.Line, errOtherKey, key.Type(), ssh.FingerprintSHA256(k.Key), ssh.FingerprintSHA256(key)),
					"if the server was made anew, remove the old key first: ssh-keygen -R "+shellQuote(host))
			}
		}
		missing = append(missing, line)
	}
	return missing, nil
}

// maxSkipped bounds the lines of known_hosts that warnings name.
const maxSkipped = 5

// readKnownHosts reads files, and warns of lines that are skipped.
func readKnownHosts(files ...string) (*verify.KnownHosts, error) {
	known, err := verify.ReadKnownHosts(files...)
	if err != nil {
		return nil, err
	}
	skipped := known.Skipped()
	for _, err := range skipped[:min(len(skipped), maxSkipped)] {
		warningf("%v: skipped", err)
	}
	if more := len(skipped) - maxSkipped; more > 0 {
		warningf("%s of known_hosts skipped", plural(more, "more line"))
	}
	return known, nil
}

// appendLines adds lines to a file with one write, after a newline if its last
// line has none.
func appendLines(name string, lines []string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fileError(filepath.Dir(name), err)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fileError(name, err)
	}
	defer f.Close()
	var text bytes.Buffer
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			text.WriteByte('\n')
		}
	}
	for _, line := range lines {
		text.WriteString(line + "\n")
	}
	if _, err := f.Write(text.Bytes()); err != nil {
		return fileError(name, err)
	}
	if err := f.Close(); err != nil {
		return fileError(name, err)
	}
	return nil
}

// pattern is the host of a known_hosts line: ADDR, or [ADDR]:PORT.
func pattern(line string) string {
	host, _, _ := strings.Cut(line, " ")
	return host
}

// lookup is a pattern with its port, whatever that is.
func lookup(pattern string) string {
	if strings.HasPrefix(pattern, "[") {
		return pattern
	}
	return net.JoinHostPort(pattern, "22")
}

// shellQuote quotes what a shell would expand: the brackets around a host that
// stands with its port.
func shellQuote(s string) string {
	if strings.HasPrefix(s, "[") {
		return "'" + s + "'"
	}
	return s
}
