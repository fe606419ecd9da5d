// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"bytes"
	"errors"
	"io"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
)

// errLong means that a line was longer than any line of the protocol. The
// line has been skipped, up to and with its newline.
var errLong = errors.New("line too long")

// lineReader reads lines of at most [frame.MaxLine] bytes. Unlike a
// bufio.Reader it forgets what it has of a line when reading fails, because
// the next bytes may be of another frame.
type lineReader struct {
	r    io.Reader
	buf  []byte // read and not yet returned
	skip bool   // the line under way is too long
	err  error  // to return once buf has no more whole lines
}

// next returns the next line with its newline. It is valid until the call
// after.
func (l *lineReader) next() ([]byte, error) {
	for {
		if i := bytes.IndexByte(l.buf, '\n'); i >= 0 {
			line := l.buf[:i+1]
			l.buf = l.buf[i+1:]
			if l.skip || len(line) > frame.MaxLine+1 {
				l.skip = false
				return nil, errLong
			}
			return line, nil
		}
		if len(l.buf) > frame.MaxLine {
			l.buf, l.skip = nil, true
		}
		if err := l.err; err != nil {
			l.buf, l.skip, l.err = nil, false, nil
			return nil, err
		}
		chunk := make([]byte, 4096)
		n := 0
		n, l.err = l.r.Read(chunk)
		l.buf = append(l.buf, chunk[:n]...)
	}
}
