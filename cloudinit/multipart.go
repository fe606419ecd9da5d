// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strconv"
	"strings"
)

// A part of a MIME multi-part (RFC 2046).
type part struct {
	contentType string
	name        string
	body        []byte
	nested      bool // a MIME message itself, which is a part as it stands
}

// join makes a multi-part. cloud-init reads it with Python's email package, as
// text, so that everything but ASCII with plain newlines is encoded.
func join(parts ...part) []byte {
	var bodies [][]byte
	for _, p := range parts {
		bodies = append(bodies, p.render())
	}
	boundary := boundary(bodies)
	var b bytes.Buffer
	b.WriteString("Content-Type: multipart/mixed; boundary=\"" + boundary + "\"\nMIME-Version: 1.0\n\n")
	for _, body := range bodies {
		b.WriteString("--" + boundary + "\n")
		b.Write(body)
		// This newline belongs to the boundary.
		b.WriteString("\n")
	}
	b.WriteString("--" + boundary + "--\n")
	return b.Bytes()
}

func (p part) render() []byte {
	if p.nested {
		return p.body
	}
	var b bytes.Buffer
	b.WriteString("Content-Type: " + p.contentType)
	if strings.HasPrefix(p.contentType, "text/") {
		b.WriteString("; charset=\"utf-8\"")
	}
	b.WriteString("\nMIME-Version: 1.0\n")
	encoding, body := "7bit", p.body
	if !asIs(p.body) {
		encoding, body = "base64", wrapped(p.body)
	}
	b.WriteString("Content-Transfer-Encoding: " + encoding + "\n")
	b.WriteString("Content-Disposition: attachment; filename=\"" + p.name + "\"\n\n")
	b.Write(body)
	return b.Bytes()
}

// asIs reports whether the bytes survive as 7bit.
func asIs(b []byte) bool {
	length := 0
	for _, c := range b {
		if length++; c == '\n' {
			length = 0
		}
		if c >= 0x7f || c < ' ' && c != '\n' && c != '\t' || length > 998 {
			return false
		}
	}
	return true
}

func wrapped(b []byte) []byte {
	const columns = 76
	text := base64.StdEncoding.EncodeToString(b)
	var out bytes.Buffer
	for len(text) > columns {
		out.WriteString(text[:columns] + "\n")
		text = text[columns:]
	}
	out.WriteString(text)
	return out.Bytes()
}

// boundary is a line that is in none of the parts. It is the same for the same
// parts.
func boundary(bodies [][]byte) string {
	for i := 0; ; i++ {
		h := sha256.New()
		h.Write([]byte(strconv.Itoa(i)))
		for _, body := range bodies {
			h.Write(body)
		}
		b := "totp-" + hex.EncodeToString(h.Sum(nil)[:12])
		if !bytes.Contains(bytes.Join(bodies, nil), []byte(b)) {
			return b
		}
	}
}
