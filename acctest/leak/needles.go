// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package leak

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// Sentinel errors of this package; they arrive wrapped.
var (
	ErrSecret = errors.New("not a secret of 20 bytes in base32") // what [New] was given; the value is left out
	ErrCode   = errors.New("not a backup code of eight digits")
)

// Needles are a secret and its backup codes in every form. It prints as how
// many they are.
type Needles struct {
	list []needle

	strict *automaton // of all
	loose  *automaton // of those that may be in pieces, for a stream without separators
}

// needle is one form of one thing.
type needle struct {
	kind   string
	bytes  []byte
	number bool // a digit on either side makes it another number
	whole  bool // not to be looked for in pieces
}

// New returns the needles of a secret, as base32 without padding, and of backup
// codes as decimals. More secrets can be joined with [Join].
func New(secret string, codes []string) (*Needles, error) {
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.ToUpper(secret))
	if err != nil || len(raw) != 20 || len(secret) != 32 {
		return nil, ErrSecret
	}
	list := secretForms(strings.ToUpper(secret), raw)
	for i, code := range codes {
		if len(code) != 8 || strings.Trim(code, "0123456789") != "" {
			return nil, fmt.Errorf("backup code %d: %w", i+1, ErrCode)
		}
		list = append(list, codeForms(code)...)
	}
	return build(list), nil
}

// Join returns the needles of all of them.
func Join(all ...*Needles) *Needles {
	var list []needle
	for _, n := range all {
		list = append(list, n.list...)
	}
	return build(list)
}

// String says how many needles there are.
func (n *Needles) String() string { return fmt.Sprintf("%d needles", len(n.list)) }

// GoString is String, for %#v.
func (n *Needles) GoString() string { return n.String() }

// Format is String under every verb.
func (n *Needles) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(n.String())) }

func build(list []needle) *Needles {
	loose := make([]needle, len(list))
	for i, n := range list {
		if !n.number && !n.whole {
			loose[i].bytes = slices.DeleteFunc(slices.Clone(n.bytes), func(b byte) bool { return separator[b] })
		}
	}
	return &Needles{list: list, strict: newAutomaton(list), loose: newAutomaton(loose)}
}

func secretForms(text string, raw []byte) []needle {
	forms := []needle{
		{kind: "secret, base32", bytes: []byte(text)},
		{kind: "secret, raw", bytes: raw, whole: true},
		{kind: "secret, hex", bytes: []byte(hex.EncodeToString(raw))},
		{kind: "secret, decimal bytes", bytes: []byte(decimals(raw, " "))},
		{kind: "secret, escaped", bytes: escaped(raw, `\x`)},
		{kind: "secret, percent-encoded", bytes: escaped(raw, "%")},
		{kind: "secret, hex of base32", bytes: []byte(hex.EncodeToString([]byte(text)))},
		{kind: "secret, reversed", bytes: reversed(text)},
	}
	forms = append(forms, base64Forms("secret, base64", raw)...)
	forms = append(forms, base64Forms("secret, base64 of base32", []byte(text))...)
	return append(forms, base64Forms("secret, base64 of base32", []byte(strings.ToLower(text)))...)
}

func codeForms(code string) []needle {
	forms := []needle{
		{kind: "backup code", bytes: []byte(code), number: true},
		{kind: "backup code, UTF-16", bytes: utf16le(code), whole: true},
		{kind: "backup code, hex of its digits", bytes: []byte(hex.EncodeToString([]byte(code))), whole: true},
	}
	for _, sep := range []string{" ", "-"} {
		forms = append(forms, needle{kind: "backup code in groups", bytes: grouped(code, 4, sep), number: true})
	}
	return forms
}

// base64Forms returns what is the same in every base64 text that holds data,
// wherever in it data begins.
func base64Forms(kind string, data []byte) []needle {
	var forms []needle
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			text := enc.EncodeToString(append(make([]byte, shift), data...))
			first := (shift*8 + 5) / 6          // the first character without a bit of what precedes
			last := (shift + len(data)) * 8 / 6 // and the first with one of what follows
			forms = append(forms, needle{kind: kind, bytes: []byte(text[first:last])})
		}
	}
	return forms
}

func grouped(s string, size int, sep string) []byte {
	var groups []string
	for len(s) > size {
		groups, s = append(groups, s[:size]), s[size:]
	}
	return []byte(strings.Join(append(groups, s), sep))
}

func decimals(raw []byte, sep string) string {
	var parts []string
	for _, b := range raw {
		parts = append(parts, fmt.Sprint(b))
	}
	return strings.Join(parts, sep)
}

func escaped(raw []byte, prefix string) []byte {
	var b bytes.Buffer
	for _, c := range raw {
		fmt.Fprintf(&b, "%s%02x", prefix, c)
	}
	return b.Bytes()
}

func utf16le(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = append(b, byte(u), byte(u>>8))
	}
	return b
}

func reversed(s string) []byte {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return b
}
