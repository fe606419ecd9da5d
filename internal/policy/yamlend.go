// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"bytes"
	"io"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// YAMLEnd returns the offset at which the YAML package stops to read data, and whether that
// is its end. reads reports whether it reads all of it. The line in the package's own errors
// is where the list or mapping around the problem begins, or the one before.
func YAMLEnd(data []byte) (at int, ended, reads bool) {
	r := &byteReader{data: data}
	dec := yaml.NewDecoder(r)
	var err error
	for err == nil {
		err = decode(dec, new(yaml.Node))
	}
	if err == io.EOF {
		return len(data), true, true
	}
	if r.ended {
		return len(bytes.TrimRight(data, " \r\n")), true, false
	}
	// A token is looked at with the three characters that follow.
	at = r.n
	for range 4 {
		_, n := utf8.DecodeLastRune(data[:at])
		at -= n
	}
	return at, false, false
}

// A byteReader hands out single bytes, so that it knows how much was needed.
type byteReader struct {
	data  []byte
	n     int
	ended bool
}

func (r *byteReader) Read(b []byte) (int, error) {
	if r.n == len(r.data) {
		r.ended = true
		return 0, io.EOF
	}
	b[0] = r.data[r.n]
	r.n++
	return 1, nil
}
