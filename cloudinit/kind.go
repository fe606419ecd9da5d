// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"compress/gzip"
	"io"
	"unicode/utf8"
)

// MaxSize is the size in bytes of the largest document that is merged into, as
// it is and unpacked. No provider takes as much.
const MaxSize = 1 << 20

// A kind is what cloud-init takes a document for.
type kind int

const (
	cloudConfig kind = iota + 1
	archive          // a list of documents in YAML
	multipart        // MIME, with documents as its parts
	packed           // gzip
	other            // a script, an include, a template, …: nothing to look into
)

// The first lines by which cloud-init knows a document, in lower case, as its
// handlers/__init__.py has them. Longer ones come before their beginnings.
var firstLines = []struct {
	prefix string
	kind   kind
}{
	{"#cloud-config-archive", archive},
	{"#cloud-config-jsonp", other},
	{Header, cloudConfig},
	{"#cloud-boothook", other},
	{"#include", other},
	{"#part-handler", other},
	{"#upstart-job", other},
	{"#!", other},
	{"## template: jinja", other},
}

const headerFix = `begin it with the line "#cloud-config", or whatever else it is: "#!/bin/sh", "MIME-Version: 1.0"`

// kindOf tells what a document is, and refuses what cloud-init would not know
// or not read.
func kindOf(doc []byte) (kind, *Error) {
	if len(doc) > MaxSize {
		return 0, &Error{Rule: ErrTooLarge, Fix: "no provider takes as much; let the machine fetch it by #include"}
	}
	if bytes.HasPrefix(doc, []byte{0x1f, 0x8b}) {
		return packed, nil
	}
	if bytes.HasPrefix(doc, []byte("\xef\xbb\xbf")) {
		return 0, &Error{Line: 1, Column: 1, Rule: ErrBOM, Fix: "save it as UTF-8 without BOM"}
	}
	if at := notUTF8(doc); at >= 0 {
		line, column := position(doc, at)
		return 0, &Error{Line: line, Column: column, Rule: ErrNotUTF8, Fix: "save it as UTF-8"}
	}
	text := bytes.TrimLeft(doc, " \t\r\n\v\f")
	if len(text) == 0 {
		return 0, &Error{Rule: ErrEmpty, Fix: "leave it out"}
	}
	lower := bytes.ToLower(text[:min(len(text), 64)])
	for _, f := range firstLines {
		if !bytes.HasPrefix(lower, []byte(f.prefix)) {
			continue
		}
		if f.kind == cloudConfig {
			// cloud-init looks no further, and takes #cloud-configs for one as well.
			if rest := lower[len(f.prefix):]; len(rest) > 0 && !bytes.ContainsAny(rest[:1], " \t\r\n") {
				break
			}
		}
		return f.kind, nil
	}
	if bytes.Contains(bytes.ToLower(doc[:min(len(doc), 4096)]), []byte("mime-version:")) {
		return multipart, nil
	}
	return 0, headerError(doc)
}

func notUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// position returns line and column of a byte, both from 1. A column is a
// character, as in [yaml.Node].
func position(b []byte, at int) (line, column int) {
	before := b[:at]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

// unpack returns what is in a gzip file, of [MaxSize] bytes at most.
func unpack(doc []byte) ([]byte, *Error) {
	damaged := &Error{Rule: ErrGzip, Fix: "pack it again"}
	r, err := gzip.NewReader(bytes.NewReader(doc))
	if err != nil {
		return nil, damaged
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	switch {
	case err != nil:
		return nil, damaged
	case len(out) > MaxSize:
		return nil, &Error{Rule: ErrTooLarge, Fix: "it unpacks to more than that; no machine needs as much to be told"}
	}
	return out, nil
}
