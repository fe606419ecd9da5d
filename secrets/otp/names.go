// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package otp

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The rules for issuers and accounts.
var (
	ErrEmpty       = errors.New("must not be empty")
	ErrColon       = errors.New("must not hold a colon") // it parts issuer and account in the label
	ErrUnprintable = errors.New("must hold printable characters only")
	ErrBlank       = errors.New("must not begin or end with a blank")
	ErrTooLong     = errors.New("is too long")
)

// A NameError says which rule an issuer or account breaks.
type NameError struct {
	Name  string // "issuer" or "account"
	Value string
	Rule  error // one of the rules above
	Fix   string
}

func (e *NameError) Error() string {
	return fmt.Sprintf("%s %q: %v; %s", e.Name, e.Value, e.Rule, e.Fix)
}

// Unwrap returns the rule.
func (e *NameError) Unwrap() error { return e.Rule }

// With these limits the longest key URI has 421 bytes. That is what fits into a
// QR code of version 13, the largest that a terminal of 80 columns shows with
// its quiet zone.
const (
	maxIssuer         = 64  // characters
	maxIssuerEscaped  = 128 // bytes
	maxAccountEscaped = 100 // bytes; a user name of 32, "@" and a host name of 64 need 97
)

// ValidIssuer returns nil or a [*NameError]. An issuer is the name that an
// authenticator app shows: printable characters of any script and single
// blanks between them, no colon, at most 64 characters, and at most 128 bytes
// when percent-encoded (a letter beyond ASCII takes six bytes or more).
func ValidIssuer(s string) error {
	fail := func(rule error, fix string) error { return &NameError{"issuer", s, rule, fix} }
	switch {
	case s == "":
		return fail(ErrEmpty, "name who runs the servers")
	case strings.Contains(s, ":"):
		return fail(ErrColon, "authenticator apps part issuer and account there; leave it out")
	case !utf8.ValidString(s), strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fail(ErrUnprintable, "leave control, formatting and invalid characters out")
	case strings.TrimSpace(s) != s:
		return fail(ErrBlank, "leave it out")
	case utf8.RuneCountInString(s) > maxIssuer, len(escape(s)) > maxIssuerEscaped:
		return fail(ErrTooLong, "take 64 characters at most, about 20 where they are not ASCII")
	}
	return nil
}

// ValidAccount returns nil or a [*NameError]. An account is the user@host that
// an authenticator app shows under the issuer: printable ASCII without blank
// and colon, at most 100 bytes when percent-encoded.
func ValidAccount(s string) error {
	fail := func(rule error, fix string) error { return &NameError{"account", s, rule, fix} }
	switch {
	case s == "":
		return fail(ErrEmpty, "use user@host")
	case strings.Contains(s, ":"):
		return fail(ErrColon, "authenticator apps part issuer and account there; leave it out")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return fail(ErrUnprintable, "use ASCII letters, digits and punctuation")
	case len(escape(s)) > maxAccountEscaped:
		return fail(ErrTooLong, "take 100 characters at most")
	}
	return nil
}

// keyURI writes the URI by hand, since url.Values sorts its parameters, adds
// plus signs for blanks, which some apps show as they are, and since pquerna's
// own has parameters nobody needs.
func keyURI(issuer, account, secret string) string {
	i := escape(issuer)
	return "otpauth://totp/" + i + ":" + escape(account) + "?secret=" + secret + "&issuer=" + i
}

// escape percent-encodes all but RFC 3986's unreserved characters and "@",
// which the label may hold and every app reads.
func escape(s string) string {
	s = url.QueryEscape(s)
	s = strings.ReplaceAll(s, "+", "%20")
	return strings.ReplaceAll(s, "%40", "@")
}
