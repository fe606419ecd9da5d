// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package card

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxSize is the size in bytes up to which [Parse] and [ParseCompact] read.
const MaxSize = 64 << 10

// block is what the size of a text is a multiple of, in bytes.
const block = 512

var (
	// ErrNoCard means that there is no card in the text.
	ErrNoCard = errors.New("no enrollment card found")

	// ErrTooLarge means that a text is larger than a card can be.
	ErrTooLarge = errors.New("is larger than 64 KiB")
)

// Text returns the text to be sealed: the page for people, blanks, and the JSON
// object as the last line. The error is a [*FieldError].
func (c Card) Text() ([]byte, error) {
	if c.Type == TypeCompact {
		return nil, &FieldError{"type", c.Type, ErrVersion, Type}
	}
	c.Created = c.Created.UTC().Truncate(time.Second)
	// An empty list is [], never null, to whoever reads the JSON.
	for _, list := range []*[]string{&c.BackupCodes, &c.HostKeys, &c.Recipients} {
		if *list == nil {
			*list = []string{}
		}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	page, err := c.page(plain)
	if err != nil {
		return nil, err
	}
	line, err := jsonLine(c)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(page) + len(line) + block)
	b.WriteString(page + "\nThe last line is for programs.\n")
	pad(&b, len(line))
	b.Write(line)
	return b.Bytes(), nil
}

// Parse reads the card of a text that was sealed: its last line, of which it
// takes only what is a valid card; see the package's remarks. Fields it does not
// know are passed over. The errors are [ErrNoCard], [ErrTooLarge] and a
// [*FieldError].
func Parse(plaintext []byte) (Card, error) {
	line, err := lastLine(plaintext)
	if err != nil {
		return Card{}, err
	}
	var c Card
	if json.Unmarshal(line, &c) != nil { // its error may quote the line
		return Card{}, ErrNoCard
	}
	if c.Type == TypeCompact {
		return Card{}, &FieldError{"type", c.Type, ErrVersion, Type}
	}
	if err := c.Validate(); err != nil {
		return Card{}, err
	}
	c.Created = c.Created.UTC().Truncate(time.Second)
	return c, nil
}

// pad fills b with lines of blanks, so that with n more bytes it ends at a
// whole block.
func pad(b *bytes.Buffer, n int) {
	missing := (block - (b.Len()+n)%block) % block
	for missing > 0 {
		line := min(missing, columns)
		b.WriteString(strings.Repeat(" ", line-1) + "\n")
		missing -= line
	}
}

// jsonLine encodes v in one line with its newline, and with "&" as it is, since
// people may read it.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("card: %w", err)
	}
	return b.Bytes(), nil
}

// lastLine returns the last line that is not blank, if it can be JSON.
func lastLine(text []byte) ([]byte, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("text of %d bytes: %w", len(text), ErrTooLarge)
	}
	text = bytes.TrimRight(text, " \t\r\n")
	line := text[bytes.LastIndexByte(text, '\n')+1:]
	if !bytes.HasPrefix(line, []byte("{")) || !utf8.Valid(line) {
		return nil, ErrNoCard
	}
	return line, nil
}
