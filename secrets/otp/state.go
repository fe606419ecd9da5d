// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package otp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// MaxStateSize is the size in bytes up to which the module reads a state file.
const MaxStateSize = 64 << 10

// The limits that the module sets to its options.
const (
	maxAttempts = 100
	maxSeconds  = 3600
	maxWindow   = 100
)

// The options of a state file that are fields of [State].
const (
	optRateLimit = "RATE_LIMIT"
	optWindow    = "WINDOW_SIZE"
	optReuse     = "DISALLOW_REUSE"
	optTOTP      = "TOTP_AUTH"
	optMark      = "TOTP_AGENT"
)

// What is wrong with a state file. The module refuses every login for the first
// five; the others are [State.Format]'s own.
var (
	ErrTooLarge  = errors.New("must have 1 byte to 64 KiB")
	ErrNUL       = errors.New("must not hold a NUL byte")
	ErrNotTOTP   = errors.New(`must hold the line " TOTP_AUTH`)
	ErrRateLimit = errors.New("must be 1 to 100 attempts in 1 to 3600 seconds, then times")
	ErrWindow    = errors.New("must be 1 to 100")
	ErrReuse     = errors.New("must be a list of time steps")
	ErrMark      = errors.New("must have an id of 26 base32 characters, an identity and an account without blanks, and a generation from 1")
	ErrCode      = errors.New("must be 10000000 to 99999999, and none twice")
	ErrOption    = errors.New(`must be one line that begins with " and is not written of a field`)
)

// A State is what a state file of pam_google_authenticator says, as its
// FILEFORMAT and source have it. It prints as a placeholder.
type State struct {
	Secret      string    // base32
	RateLimit   RateLimit // zero: none, and codes can be guessed
	Window      int       // how many codes around the current one are good; zero: the module's default, 3
	BackupCodes []string  // those left
	Mark        Mark      // zero: not written by this project
	Rest        []string  // other option lines, each from its " to its last character

	// Issued is how many backup codes there were at first, so that a login
	// with one of them can be told. Zero: as many as BackupCodes has.
	Issued int

	Tries []int64 // the module's record of recent attempts, good or bad, in Unix time
	Steps []int64 // the module's record of codes that are used up, in periods since 1970

	// Used reports that a login succeeded with a code of this state.
	// [ParseState] sets it; nothing reads it.
	Used bool
}

// A RateLimit is how many attempts, good or bad, a user has in a span of time.
// Refused ones count as well, so that who goes on trying stays locked out.
type RateLimit struct{ Attempts, Seconds int }

// The rate limits that a policy can ask for.
var (
	Standard = RateLimit{Attempts: 3, Seconds: 30}
	Strict   = RateLimit{Attempts: 5, Seconds: 300}
)

// A Mark is our own line in a state file, which the module keeps. It says which
// enrollment the file belongs to.
type Mark struct {
	ID         string // 26 characters of lower case base32
	Identity   string // the machine it was made on; one word
	Generation int    // from 1
	Account    string // the account it was made for; one word, or empty
}

func (m Mark) valid() bool {
	return len(m.ID) == 26 && strings.Trim(m.ID, "abcdefghijklmnopqrstuvwxyz234567") == "" &&
		m.Identity != "" && len(m.Identity) <= 200 &&
		!strings.ContainsFunc(m.Identity, func(r rune) bool { return r < '!' || r > '~' }) &&
		m.Generation >= 1 && len(m.Account) <= 200 &&
		!strings.ContainsFunc(m.Account, func(r rune) bool { return r < '!' || r > '~' })
}

// Format writes a state file. It always asks for time-based codes, each of
// which is good once. The errors are the Err values of this package.
func (s State) Format() ([]byte, error) {
	var b bytes.Buffer
	option := func(name string, values ...string) {
		b.WriteString(`" ` + name)
		for _, v := range values {
			b.WriteString(" " + v)
		}
		b.WriteByte('\n')
	}
	if !validSecret(s.Secret) {
		return nil, fmt.Errorf("secret: %w", ErrSecret)
	}
	b.WriteString(s.Secret + "\n")
	if r := s.RateLimit; r != (RateLimit{}) {
		if r.Attempts < 1 || r.Attempts > maxAttempts || r.Seconds < 1 || r.Seconds > maxSeconds {
			return nil, fmt.Errorf("%s %d %d: %w", optRateLimit, r.Attempts, r.Seconds, ErrRateLimit)
		}
		option(optRateLimit, append([]string{strconv.Itoa(r.Attempts), strconv.Itoa(r.Seconds)}, decimals(s.Tries)...)...)
	}
	if s.Window != 0 {
		if s.Window < 1 || s.Window > maxWindow {
			return nil, fmt.Errorf("%s %d: %w", optWindow, s.Window, ErrWindow)
		}
		option(optWindow, strconv.Itoa(s.Window))
	}
	option(optReuse, decimals(s.Steps)...)
	option(optTOTP)
	if s.Mark != (Mark{}) {
		if !s.Mark.valid() {
			return nil, fmt.Errorf("%s: %w", optMark, ErrMark)
		}
		values := []string{"id=" + s.Mark.ID, "identity=" + s.Mark.Identity,
			"gen=" + strconv.Itoa(s.Mark.Generation), "codes=" + strconv.Itoa(max(s.Issued, len(s.BackupCodes)))}
		if s.Mark.Account != "" {
			values = append(values, "account="+s.Mark.Account)
		}
		option(optMark, values...)
	}
	for i, line := range s.Rest {
		name, _ := optionName(line)
		if !strings.HasPrefix(line, `"`) || strings.ContainsAny(line, "\r\n\x00") || slices.Contains(fieldOptions, name) {
			return nil, fmt.Errorf("option line %d: %w", i+1, ErrOption)
		}
		b.WriteString(line + "\n")
	}
	for i, code := range s.BackupCodes {
		if n, err := strconv.Atoi(code); err != nil || len(code) != 8 || n < minBackupCode || slices.Contains(s.BackupCodes[:i], code) {
			return nil, fmt.Errorf("backup code %d: %w", i+1, ErrCode)
		}
		b.WriteString(code + "\n")
	}
	if b.Len() > MaxStateSize {
		return nil, fmt.Errorf("state of %d bytes: %w", b.Len(), ErrTooLarge)
	}
	return b.Bytes(), nil
}

var fieldOptions = []string{optRateLimit, optWindow, optReuse, optTOTP, optMark}

// optionName returns the NAME of a line `" NAME …`.
func optionName(line string) (string, bool) {
	rest, ok := strings.CutPrefix(line, `" `)
	if !ok {
		return "", false
	}
	if i := strings.IndexAny(rest, " \t"); i >= 0 {
		rest = rest[:i]
	}
	return rest, rest != ""
}

func decimals(ns []int64) []string {
	s := make([]string, len(ns))
	for i, n := range ns {
		s[i] = strconv.FormatInt(n, 10)
	}
	return s
}

// validSecret takes what both the module and the apps read: the module ignores
// blanks and dashes and reads 0, 1 and 8 as letters, the apps do not.
func validSecret(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") == ""
}
