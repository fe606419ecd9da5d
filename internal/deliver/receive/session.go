// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package receive

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age/armor"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver/frame"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// session is one connection.
type session struct {
	*receiver
	conn       net.Conn
	lines      lineReader
	stored     int // new files
	complaints int

	// The frame that is under way, if payload is not nil.
	head    frame.Header
	payload []byte
}

// serve reads frames until the connection ends. It closes the connection.
func (r *receiver) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	s := &session{receiver: r, conn: conn, lines: lineReader{r: conn}}
	for {
		line, err := s.lines.next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if !s.refuse(frame.WordTimeout) {
				return
			}
		case errors.Is(err, errLong):
			if s.payload != nil && !s.refuse(frame.WordFormat) {
				return
			}
		case err != nil:
			if s.payload != nil && ctx.Err() == nil {
				s.complain("the connection ended in the middle of %s", fileName(s.head))
			}
			return
		case bytes.HasPrefix(line, []byte(frame.Prefix)):
			if !s.header(string(line)) {
				return
			}
		case s.payload != nil:
			if !s.line(line) {
				return
			}
		}
		// Everything else is noise between frames.
	}
}

// header begins a frame. A header in the middle of another frame means that
// the guest has given that one up.
func (s *session) header(line string) (goOn bool) {
	if s.payload != nil {
		s.complain("%s was cut short and is being sent anew", fileName(s.head))
		s.reset()
	}
	h, err := frame.ParseHeader(line)
	s.head = h
	switch {
	case errors.Is(err, frame.ErrSize):
		return s.refuse(frame.WordSize)
	case errors.Is(err, frame.ErrID), errors.Is(err, frame.ErrUser):
		return s.refuse(frame.WordName)
	case err != nil:
		return s.refuse(frame.WordFormat)
	}
	s.payload = make([]byte, 0, h.Length)
	s.conn.SetReadDeadline(time.Now().Add(s.frameTime))
	return true
}

// line takes one line of the payload.
func (s *session) line(line []byte) (goOn bool) {
	if len(s.payload)+len(line) > s.head.Length {
		return s.refuse(frame.WordLength)
	}
	s.payload = append(s.payload, line...)
	ends := string(bytes.TrimSpace(line)) == armor.Footer
	switch {
	case len(s.payload) == s.head.Length:
		return s.take()
	case ends:
		return s.refuse(frame.WordLength)
	}
	return true
}

// take stores the envelope and confirms it.
func (s *session) take() (goOn bool) {
	name, payload := fileName(s.head), s.payload
	user, id := s.head.User, s.head.ID
	if !isAge(payload) {
		return s.refuse(frame.WordAge)
	}
	if s.stored >= maxNew {
		return s.refuse(frame.WordLimit)
	}
	fresh, err := s.store.put(name, payload)
	if errors.Is(err, errExists) {
		return s.refuse(frame.WordExists)
	}
	if err != nil {
		s.complain("%s: %v", name, err)
		return s.refuse(frame.WordStore)
	}
	s.reset()
	ok := frame.OK(payload)
	if !s.answer(ok) {
		return false
	}
	if fresh {
		s.stored++
		s.hooks.arrived(arrival{file: filepath.Join(s.Dir, name), user: user, id: id})
		s.logf("%s: stored, %d bytes, sha256 %s", name, len(payload), ok[3:len(ok)-1])
	} else {
		s.complain("%s: had it already, confirmed again", name)
	}
	if s.confirmed(name) {
		s.linger()
		s.done()
		return false
	}
	return true
}

// refuse ends the frame with an error.
func (s *session) refuse(w frame.Word) (goOn bool) {
	if s.head.ID == "" {
		s.complain("refused an envelope without a proper name: %s", w)
	} else {
		s.complain("%s: refused: %s", fileName(s.head), w)
	}
	s.reset()
	return s.answer(frame.Err(w))
}

func (s *session) reset() {
	s.head, s.payload = frame.Header{}, nil
	s.conn.SetReadDeadline(time.Time{})
}

func (s *session) answer(line string) (goOn bool) {
	s.conn.SetWriteDeadline(time.Now().Add(answerTime))
	if _, err := io.WriteString(s.conn, line); err != nil {
		s.complain("the machine does not take the answer: %v", err)
		return false
	}
	return true
}

// linger lets the other side read the last answer: a hypervisor that sees the
// connection closed at once may drop what it has not passed on yet.
func (s *session) linger() {
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
		s.conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		io.Copy(io.Discard, io.LimitReader(s.conn, 1<<20))
	}
}

// complain logs what a guest can cause as often as it likes.
func (s *session) complain(format string, args ...any) {
	s.complaints++
	switch {
	case s.complaints < maxComplaint:
		s.logf(format, args...)
	case s.complaints == maxComplaint:
		s.logf("too many complaints about this connection; the rest is not logged")
	}
}

func fileName(h frame.Header) string {
	return h.User + "-" + h.ID + ".age"
}

// isAge reports whether data is an armored age file and nothing else. Of its payload
// the length counts.
func isAge(data []byte) bool {
	if !bytes.HasPrefix(data, []byte(armor.Header+"\n")) {
		return false
	}
	file, err := io.ReadAll(armor.NewReader(bytes.NewReader(data)))
	return err == nil && isBinaryAge(file)
}

func isBinaryAge(data []byte) bool { return seal.CheckFile(data) == nil }
