// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

var (
	// ErrVersion means that the card is of another version or type than this
	// package reads.
	ErrVersion = errors.New("is not of a version and type that is known here")

	// ErrField means that a field has not its form.
	ErrField = errors.New("has not the form it must have")
)

// A FieldError names the field of a card that is not as it must be.
type FieldError struct {
	Field string // as the JSON object has it: host_keys[1]
	Value string // empty where it may be secret
	Rule  error  // [ErrField] or [ErrVersion]
	Want  string // the form, in words
}

func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("card: %s: %v; want %s", e.Field, e.Rule, e.Want)
	}
	return fmt.Sprintf("card: %s %.80q: %v; want %s", e.Field, e.Value, e.Rule, e.Want)
}

// Unwrap returns the rule.
func (e *FieldError) Unwrap() error { return e.Rule }

// The longest that fields may be. With these the page stays within 80 columns
// and the compact form within its limit.
const (
	idLen         = 26
	tokenLen      = 43 // of 32 bytes, in base64url
	secretLen     = 32
	maxUser       = 32
	maxHostname   = 64
	maxInstanceID = 128
	maxIssuer     = 64  // characters
	maxURI        = 425 // bytes: what a QR code of version 13 holds, 69 modules wide
	maxAgent      = 64
	maxGeneration = 1<<31 - 1
	maxCodes      = 10
	maxHostKeys   = 16
	maxRecipients = 64
	maxShort      = 76 // columns
)

const (
	lower   = "abcdefghijklmnopqrstuvwxyz"
	upper   = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits  = "0123456789"
	letters = lower + upper
	base32  = lower + "234567"
)

// Validate returns nil or a [*FieldError] of the first field that is not as it
// must be.
func (c Card) Validate() error {
	compact := c.Type == TypeCompact
	switch {
	case c.V != Version:
		return &FieldError{"v", strconv.Itoa(c.V), ErrVersion, "1; a newer totpctl may know it"}
	case c.Type != Type && !compact:
		return &FieldError{"type", c.Type, ErrVersion, Type}
	}
	for _, f := range []struct {
		field, value string
		ok           bool
		want         string
	}{
		{"id", c.ID, validID(c.ID), "26 characters of lower case base32"},
		{"supersedes", c.Supersedes, c.Supersedes == "" || validID(c.Supersedes) && c.Supersedes != c.ID, "the id of another card, or nothing"},
		{"token", "", c.Token == "" || len(c.Token) == tokenLen && only(c.Token, letters+digits+"-_"), "43 characters of base64url, or nothing"},
		{"instance_id", c.InstanceID, c.InstanceID == CleanInstanceID(c.InstanceID), "printable ASCII without quotes, at most 128 characters"},
		{"user", c.User, validUser(c.User), "a user name of a-z, 0-9, _, . and -, at most 32 characters"},
		{"secret", "", len(c.Secret) == secretLen && only(c.Secret, upper+"234567"), "32 characters of base32"},
		{"algorithm", c.Algorithm, c.Algorithm == "SHA1", "SHA1"},
		{"digits", strconv.Itoa(c.Digits), c.Digits == 6, "6"},
		{"period", strconv.Itoa(c.Period), c.Period == 30, "30"},
		{"backup_codes", "", len(c.BackupCodes) <= maxCodes, "10 at most"},
		{"host_keys", "", len(c.HostKeys) <= maxHostKeys, "16 at most"},
	} {
		if !f.ok {
			return &FieldError{f.field, f.value, ErrField, f.want}
		}
	}
	for i, code := range c.BackupCodes {
		if len(code) != 8 || code[0] == '0' || !only(code, digits) {
			return &FieldError{fmt.Sprintf("backup_codes[%d]", i), "", ErrField, "8 digits, the first not 0"}
		}
	}
	for i, k := range c.HostKeys {
		if _, _, _, ok := splitHostKey(k); !ok {
			return &FieldError{fmt.Sprintf("host_keys[%d]", i), k, ErrField, "type, SHA256 fingerprint and, where there is one, the key itself"}
		}
	}
	if !compact {
		if err := c.validateRest(); err != nil {
			return err
		}
	}
	if !c.validURI(compact) { // last, since it repeats other fields
		return &FieldError{"otpauth", "", ErrField, "the key URI of this issuer, user, host name and secret"}
	}
	return nil
}

// validateRest checks what a compact object has not.
func (c Card) validateRest() error {
	for _, f := range []struct {
		field, value string
		ok           bool
		want         string
	}{
		{"generation", strconv.Itoa(c.Generation), c.Generation >= 1 && c.Generation <= maxGeneration, "a number from 1"},
		{"hostname", c.Hostname, c.Hostname == CleanHostname(c.Hostname), "letters, digits, -, _ and ., at most 64 characters"},
		{"issuer", c.Issuer, validIssuer(c.Issuer), "printable characters without colon, at most 64"},
		{"created", "", validTime(c.Created), "a time"},
		{"recipients", "", len(c.Recipients) >= 1 && len(c.Recipients) <= maxRecipients, "1 to 64"},
		{"escrow", "", len(c.Escrow) <= maxRecipients, "64 at most"},
		{"agent", c.Agent, c.Agent != "" && len(c.Agent) <= maxAgent && printableASCII(c.Agent), "a version, at most 64 characters"},
	} {
		if !f.ok {
			return &FieldError{f.field, f.value, ErrField, f.want}
		}
	}
	for i, r := range c.Recipients {
		h, ok := strings.CutPrefix(r, "sha256:")
		if !ok || len(h) != 16 || !only(h, digits+"abcdef") {
			return &FieldError{fmt.Sprintf("recipients[%d]", i), r, ErrField, "sha256: and 16 hexadecimal digits"}
		}
	}
	for i, r := range c.Escrow {
		if n := utf8.RuneCountInString(r); n == 0 || n > maxShort || !printableASCII(strings.Replace(r, "…", "", 1)) {
			return &FieldError{fmt.Sprintf("escrow[%d]", i), r, ErrField, "a short name of a recipient"}
		}
	}
	return nil
}

// validURI reads the URI instead of comparing it, since the same label can be
// escaped in more than one way.
func (c Card) validURI(compact bool) bool {
	if len(c.OTPAuth) > maxURI || !printableASCII(c.OTPAuth) {
		return false
	}
	u, err := url.Parse(c.OTPAuth)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.User != nil || u.Fragment != "" {
		return false
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return false
	}
	want := map[string]string{"secret": c.Secret, "issuer": c.Issuer, "algorithm": "SHA1", "digits": "6", "period": "30"}
	for k, v := range q {
		if w, ok := want[k]; !ok || len(v) != 1 || v[0] != w {
			return false
		}
	}
	if compact {
		return q.Has("secret") && u.Path == "/"+c.compactAccount()
	}
	return q.Has("secret") && q.Has("issuer") && u.Path == "/"+c.Issuer+":"+c.User+"@"+c.Hostname
}

// CleanHostname makes a host name that a card can have of whatever a machine
// calls itself: at most 64 characters, those other than letters, digits, ".",
// "_" and "-" replaced by "-". A name that has none of its own is "unnamed".
func CleanHostname(name string) string {
	s := clean(name, maxHostname, '-', func(r rune) bool { return strings.ContainsRune(letters+digits+"._-", r) })
	if strings.Trim(s, "-.") == "" {
		return "unnamed"
	}
	return s
}

// CleanInstanceID makes an instance-id that a card can have of whatever a
// datasource gives: at most 128 characters, those other than printable ASCII,
// and quotes and backslashes, replaced by "?".
func CleanInstanceID(id string) string {
	return clean(strings.TrimSpace(id), maxInstanceID, '?', func(r rune) bool {
		return r >= ' ' && r <= '~' && r != '"' && r != '\\'
	})
}

func clean(s string, limit int, instead rune, ok func(rune) bool) string {
	s = strings.Map(func(r rune) rune {
		if ok(r) {
			return r
		}
		return instead
	}, s)
	return strings.TrimSpace(s[:min(len(s), limit)])
}

func validID(s string) bool { return len(s) == idLen && only(s, base32) }

func validUser(s string) bool {
	return s != "" && len(s) <= maxUser && only(s[:1], lower+"_") && only(s, lower+digits+"_.-")
}

func validIssuer(s string) bool {
	return s != "" && utf8.ValidString(s) && utf8.RuneCountInString(s) <= maxIssuer && !strings.Contains(s, ":") &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// validTime takes what RFC 3339 can say, in UTC and to the second.
func validTime(t time.Time) bool {
	t = t.UTC().Truncate(time.Second)
	return !t.IsZero() && t.Year() >= 1 && t.Year() <= 9999
}

func printableASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// only reports whether s has no character outside alphabet.
func only(s, alphabet string) bool { return strings.Trim(s, alphabet) == "" }
