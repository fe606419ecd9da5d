// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf16"
)

const (
	// maxInput bounds the envelope or log that is read. A console log of a
	// server that has run for years fits.
	maxInput = 64 << 20

	// maxIdentity bounds an identity file.
	maxIdentity = 1 << 20
)

var errInputTooLarge = errors.New("is too large")

// readInput reads a file, or standard input where name is "-".
func readInput(name string, limit int64) ([]byte, error) {
	if name == "-" {
		if isTerminal(os.Stdin) {
			return readPasted(os.Stdin, limit)
		}
		return readAll("standard input", os.Stdin, limit)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fileError(name, err)
	}
	defer f.Close()
	return readAll(fmt.Sprintf("file %q", name), f, limit)
}

func readAll(what string, r io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, reason(err))
	}
	if int64(len(data)) > limit {
		return nil, withHints(fmt.Errorf("%s: %w: it has more than %d MiB", what, errInputTooLarge, limit>>20),
			"cut out the part that is meant, and give that")
	}
	return asUTF8(data), nil
}

// readPasted reads what is pasted into a terminal: an armored envelope up to its
// last line, anything else up to the end of the input.
func readPasted(r io.Reader, limit int64) ([]byte, error) {
	printf("reading from the terminal: paste the text, then press ctrl-d (ctrl-z and enter on Windows)")
	var pasted bytes.Buffer
	lines := bufio.NewReader(io.LimitReader(r, limit))
	for {
		line, err := lines.ReadBytes('\n')
		pasted.Write(line)
		if err == io.EOF || bytes.HasSuffix(bytes.TrimSpace(line), []byte(armorEnd)) {
			return pasted.Bytes(), nil
		}
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", reason(err))
		}
	}
}

// asUTF8 takes off a byte order mark and turns UTF-16 into UTF-8: the redirection
// of Windows PowerShell writes text so.
func asUTF8(data []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(data, []byte{0xef, 0xbb, 0xbf}):
		return data[3:]
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(data, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return data
	}
	units := make([]uint16, 0, len(data)/2)
	for data = data[2:]; len(data) >= 2; data = data[2:] {
		units = append(units, order.Uint16(data))
	}
	return []byte(string(utf16.Decode(units)))
}

// fileError names the file once, quoted.
func fileError(name string, err error) error {
	return fmt.Errorf("file %q: %w", name, reason(err))
}

// reason is what a system call said, without the call and the path.
func reason(err error) error {
	if path := new(os.PathError); errors.As(err, &path) {
		return path.Err
	}
	return err
}
