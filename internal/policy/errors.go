// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An Error is one problem of one field.
type Error struct {
	File         string // the document's name; empty if the policy was not read from one
	Path         string // the field, as in users[0].recipients[1]; empty for the document itself
	Line, Column int    // from 1; zero if unknown
	Value        string // what was found, as it may be shown; empty if nothing may
	Rule         error  // what was broken
	Fix          string // what to do about it
}

// Error returns the problem in one line:
//
//	image.yaml:4:11: users[0].name: "a/b": is not a user name; use 1 to 32 of …
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		for _, n := range []int{e.Line, e.Column} {
			if n == 0 {
				break
			}
			b.WriteString(":" + strconv.Itoa(n))
		}
		b.WriteString(": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	if e.Value != "" {
		fmt.Fprintf(&b, "%q: ", e.Value)
	}
	b.WriteString(e.Rule.Error())
	if e.Fix != "" {
		b.WriteString("; " + e.Fix)
	}
	return b.String()
}

// Unwrap returns the rule.
func (e *Error) Unwrap() error { return e.Rule }

// Errors are all problems of a policy, in the order of the document.
type Errors []*Error

// Error returns the problems, one a line.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// orNil makes an error of es that is nil if there is no problem.
func (es Errors) orNil() error {
	if len(es) == 0 {
		return nil
	}
	return es
}

func (es Errors) sort() {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// The document as a whole.
var (
	ErrTooLarge  = errors.New("is larger than 64 KiB")
	ErrEmpty     = errors.New("is empty")
	ErrNotUTF8   = errors.New("is not UTF-8")
	ErrBOM       = errors.New("begins with a byte order mark")
	ErrTab       = errors.New("is indented with a tab")
	ErrControl   = errors.New("holds a control character")
	ErrSyntax    = errors.New("is not YAML")
	ErrCut       = errors.New("ends in the middle")
	ErrDocuments = errors.New("holds more than one YAML document")
	ErrMissing   = errors.New("there is no image policy")
)

// Keys and types.
var (
	ErrAnchor       = errors.New("anchors, aliases and merge keys are not supported")
	ErrTag          = errors.New("YAML tags are not supported")
	ErrUnknownKey   = errors.New("unknown key")
	ErrDuplicateKey = errors.New("key is given twice")
	ErrType         = errors.New("has the wrong type")
	ErrRequired     = errors.New("is required")
	ErrEmptyValue   = errors.New("must not be empty")
)

// Values.
var (
	ErrVersion       = errors.New("is not a version this program knows")
	ErrWord          = errors.New("is not a known word")
	ErrRange         = errors.New("is out of range")
	ErrDuplicate     = errors.New("is given twice")
	ErrUserName      = errors.New("is not a user name")
	ErrExemptRoot    = errors.New("root cannot be exempt, nor can its group")
	ErrExemptAll     = errors.New("would exempt a large part of the Internet from the code")
	ErrExemptLocal   = errors.New("holds loopback addresses, from which every local user could log in as another without a code")
	ErrCIDR          = errors.New("is not a network in CIDR notation")
	ErrBuildUser     = errors.New("cannot be the account that goes with the first boot")
	ErrPort          = errors.New("is not the name of a virtio port")
	ErrDevice        = errors.New("is not a serial port")
	ErrURL           = errors.New("is not a URL envelopes can be sent to")
	ErrNoID          = errors.New("has no {id} in its path, nor is it a POST of JSON that has it, so that one envelope would overwrite another")
	ErrHeader        = errors.New("is not an HTTP header")
	ErrGuestPath     = errors.New("is not an absolute path")
	ErrToken         = errors.New("is not an enrollment token")
	ErrClassicBanner = errors.New("shows envelopes to everybody, and a classic recipient's can be opened by whoever keeps one until there is a quantum computer")

	ErrNoRoom = errors.New("makes a card too large for a channel")

	ErrNotOfType   = errors.New("does not belong to a channel of this type")
	ErrPlaceholder = errors.New("has a placeholder that nothing is known for")
	ErrTemplate    = errors.New("is not a JSON text with the envelope in it")
	ErrStatus      = errors.New("is not a status code of success")
	ErrHMACKey     = errors.New("is not a key for the signature of the body")
	ErrKeyPair     = errors.New("is one half of a certificate and its key")
	ErrDuration    = errors.New("is not a length of time")
)

// Layers.
var (
	ErrCredentialInImage = errors.New("credentials must not be in an image")
	ErrOneInImage        = errors.New("all instances of the image would share what takes one envelope in its life")
	ErrNotInLayer        = errors.New("may not be set in this layer")
	ErrLoosens           = errors.New("may only be made stricter by this layer")
	ErrTakesAway         = errors.New("may only be added to by this layer")
	ErrRecipientsFrom    = errors.New("recipients_from of the image does not name this layer")
)
