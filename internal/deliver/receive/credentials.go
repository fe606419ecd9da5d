// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// The kinds of lines in a file of credentials.
const (
	// kindToken: VALUE is the SHA-256, in hex, of a token that the client sends.
	kindToken = "token-sha256"

	// kindHMAC: VALUE is the key of the HMAC-SHA256 by which the client signs
	// what it sends.
	kindHMAC = "hmac-sha256"
)

// anyClient stands for every client that has no line of its own.
const anyClient = "*"

// minKey is the length in characters of the shortest key: 32 digits of hex.
const minKey = 32

var (
	// ErrCredential is the error of a line that is no credential.
	ErrCredential = errors.New("must be CLIENT " + kindToken + " HASH or CLIENT " + kindHMAC + " KEY")

	// ErrNoCredential means that a file of credentials names nobody.
	ErrNoCredential = errors.New("holds no credential, so that nobody could deliver")
)

// credentials are what clients show who they are by.
type credentials map[string][]credential

type credential struct {
	token [sha256.Size]byte
	key   []byte // nil: a token
}

// parseCredentials reads a file of credentials: one on each line that is neither
// empty nor begins with "#". Errors name the line and quote nothing of it.
func parseCredentials(text []byte) (credentials, error) {
	c := credentials{}
	var errs []error
	number := 0
	for line := range strings.Lines(string(text)) {
		number++
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		one, err := parseCredential(f)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", number, err))
			continue
		}
		c[f[0]] = append(c[f[0]], one)
	}
	if len(errs) == 0 && len(c) == 0 {
		errs = append(errs, ErrNoCredential)
	}
	return c, errors.Join(errs...)
}

func parseCredential(f []string) (credential, error) {
	var c credential
	switch {
	case len(f) != 3:
		return c, ErrCredential
	case f[0] != anyClient && !isClient(f[0]):
		return c, fmt.Errorf("client: %w", errClient)
	case f[1] == kindToken:
		sum, err := hex.DecodeString(f[2])
		if err != nil || len(sum) != sha256.Size {
			return c, fmt.Errorf("%w: HASH is 64 digits of hex", ErrCredential)
		}
		copy(c.token[:], sum)
	case f[1] == kindHMAC:
		if len(f[2]) < minKey {
			return c, fmt.Errorf("%w: KEY has at least %d characters", ErrCredential, minKey)
		}
		c.key = []byte(f[2])
	default:
		return c, ErrCredential
	}
	return c, nil
}

var errClient = errors.New(`must be 1 to 64 of a-z, 0-9, ".", "_" and "-", no "." first or last, no "-" first, and no device of Windows`)

// isClient tells whether a name can be that of a client, and so of a directory. No
// two of them are one directory anywhere: there are file systems that ignore case, or
// a dot at the end. Nor is any of them an option to a program that gets all names
// of a directory, as rm *.
func isClient(name string) bool {
	const chars = "abcdefghijklmnopqrstuvwxyz0123456789._-"
	return name != "" && len(name) <= 64 && strings.Trim(name, ".") == name && name[0] != '-' && strings.Trim(name, chars) == "" && filepath.IsLocal(name)
}

// allow reports whether a request with this body is from the client.
func (c credentials) allow(client string, req *http.Request, body []byte) bool {
	lines, ok := c[client]
	if !ok {
		lines = c[anyClient]
	}
	token := req.Header.Get("X-Token")
	if scheme, value, ok := strings.Cut(req.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		token = value
	}
	hash := sha256.Sum256([]byte(token))
	allowed := false
	for _, line := range lines {
		switch {
		case line.key == nil:
			allowed = hmac.Equal(hash[:], line.token[:]) && token != "" || allowed
		default:
			allowed = frame.Signed(line.key, req, body) || allowed
		}
	}
	return allowed
}
