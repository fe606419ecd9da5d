// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package otp

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ParseState reads a state file as the module does (version 1.08 of
// pam_google_authenticator.c): it takes what the module takes, so that a file
// somebody wrote by hand is not mistaken for a broken one, and refuses a file
// with which the module lets nobody in by a code.
//
// What the module reads without use is not kept: repeated options, of which the
// first holds, and lines from the first on that is neither option nor backup
// code. A mark that is not well formed counts as absent. The secret is brought
// into the form that [State.Format] wants. A file for counter-based codes is
// read, its HOTP_COUNTER among Rest.
//
// The errors are [ErrTooLarge], [ErrNUL], [ErrSecret], [ErrRateLimit],
// [ErrWindow], [ErrReuse] and [ErrNotTOTP].
func ParseState(data []byte) (State, error) {
	if len(data) < 1 || len(data) > MaxStateSize {
		return State{}, fmt.Errorf("state of %d bytes: %w", len(data), ErrTooLarge)
	}
	if bytes.IndexByte(data, 0) >= 0 {
		return State{}, fmt.Errorf("state: %w", ErrNUL)
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	secret, ok := moduleSecret(first)
	if !ok {
		return State{}, fmt.Errorf("line 1: %w", ErrSecret)
	}
	s := State{Secret: secret, BackupCodes: moduleBackupCodes(rest)}
	seen := make(map[string]bool)
	for line := range strings.FieldsFuncSeq(rest, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if line[0] != '"' {
			continue
		}
		name, ok := optionName(line)
		if !ok {
			s.Rest = append(s.Rest, line)
			continue
		}
		if seen[name] {
			continue
		}
		seen[name] = true
		value := strings.TrimLeft(line[len(`" `+name):], " \t")
		switch name {
		case optRateLimit:
			s.RateLimit, s.Tries, ok = parseRateLimit(value)
			if !ok {
				return State{}, fmt.Errorf("%s: %w", name, ErrRateLimit)
			}
		case optWindow:
			s.Window, ok = parseWindow(value)
			if !ok {
				return State{}, fmt.Errorf("%s: %w", name, ErrWindow)
			}
		case optReuse:
			s.Steps, ok = parseDecimals(value)
			if !ok {
				return State{}, fmt.Errorf("%s: %w", name, ErrReuse)
			}
		case optMark:
			s.Mark, s.Issued = parseMark(value)
		case optTOTP:
		default:
			s.Rest = append(s.Rest, line)
		}
	}
	// The module looks for these characters anywhere.
	if !bytes.Contains(data, []byte(`" `+optTOTP)) && !slices.ContainsFunc(s.Rest, isCounter) {
		return State{}, fmt.Errorf("state: %w", ErrNotTOTP)
	}
	s.Used = len(s.Steps) > 0 || len(s.BackupCodes) < s.Issued
	return s, nil
}

// moduleSecret is base32_decode of the module's base32.c, but for the bytes: it
// returns the characters that count, in upper case.
func moduleSecret(line string) (string, bool) {
	var b strings.Builder
	for _, c := range []byte(line) {
		switch c {
		case ' ', '\t', '\r', '-':
			continue
		case '0':
			c = 'O'
		case '1':
			c = 'L'
		case '8':
			c = 'B'
		}
		switch {
		case 'a' <= c && c <= 'z':
			c -= 'a' - 'A'
		case 'A' <= c && c <= 'Z', '2' <= c && c <= '7':
		default:
			return "", false
		}
		b.WriteByte(c)
	}
	return b.String(), b.Len() >= 2 // one character makes no byte
}

// moduleBackupCodes is the loop of check_scratch_codes.
func moduleBackupCodes(rest string) []string {
	var codes []string
	for {
		rest = strings.TrimLeft(rest, "\r\n")
		if strings.HasPrefix(rest, `"`) {
			i := strings.IndexByte(rest, '\n')
			if i < 0 {
				return codes
			}
			rest = rest[i:]
			continue
		}
		// strtoul passes over any blanks, line ends among them, and a sign.
		number := strings.TrimLeft(rest, " \t\n\v\f\r")
		number = strings.TrimPrefix(number, "+")
		end := len(number) - len(strings.TrimLeft(number, "0123456789"))
		after := number[end:]
		n, err := strconv.Atoi(number[:end])
		if err != nil || n < minBackupCode || n > maxBackupCode || after != "" && after[0] != '\r' && after[0] != '\n' {
			return codes
		}
		if code := strconv.Itoa(n); !slices.Contains(codes, code) {
			codes = append(codes, code)
		}
		rest = after
	}
}

// parseRateLimit reads two numbers and more, blanks between them alone.
func parseRateLimit(value string) (RateLimit, []int64, bool) {
	if strings.Trim(value, " \t") != value || strings.Trim(value, "0123456789 \t") != "" {
		return RateLimit{}, nil, false
	}
	n, ok := parseDecimals(value)
	if !ok || len(n) < 2 || n[0] < 1 || n[0] > maxAttempts || n[1] < 1 || n[1] > maxSeconds {
		return RateLimit{}, nil, false
	}
	limit, tries := RateLimit{Attempts: int(n[0]), Seconds: int(n[1])}, n[2:]
	if len(tries) == 0 {
		return limit, nil, true
	}
	return limit, tries, true
}

func parseWindow(value string) (int, bool) {
	if i := strings.IndexAny(value, " \t"); i >= 0 {
		value = value[:i]
	}
	n, err := strconv.Atoi(value)
	return n, err == nil && n >= 1 && n <= maxWindow
}

func parseDecimals(value string) ([]int64, bool) {
	var ns []int64
	for f := range strings.FieldsSeq(value) {
		n, err := strconv.ParseUint(f, 10, 63)
		if err != nil {
			return nil, false
		}
		ns = append(ns, int64(n))
	}
	return ns, true
}

// parseMark reads our own line. Words it does not know are for later versions.
func parseMark(value string) (m Mark, issued int) {
	for f := range strings.FieldsSeq(value) {
		key, v, _ := strings.Cut(f, "=")
		switch key {
		case "id":
			m.ID = v
		case "identity":
			m.Identity = v
		case "gen":
			m.Generation, _ = strconv.Atoi(v)
		case "account":
			m.Account = v
		case "codes":
			issued, _ = strconv.Atoi(v)
		}
	}
	if !m.valid() {
		return Mark{}, 0
	}
	return m, max(issued, 0)
}

func isCounter(line string) bool {
	value, ok := strings.CutPrefix(line, `" HOTP_COUNTER `)
	n, err := strconv.Atoi(strings.TrimSpace(value))
	return ok && err == nil && n > 0
}
