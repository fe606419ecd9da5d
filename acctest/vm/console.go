// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package vm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// ErrConsole means that the console did not answer as a login on it does.
var ErrConsole = errors.New("no login on the console")

// LogIn logs in on the serial console as root, with a password, as a person
// does who sits there, runs a command, and logs out. It returns what the screen has
// shown since the command was typed. A command that a shell did not run to its end
// is an error that wraps [ErrConsole].
func (m *Machine) LogIn(ctx context.Context, password, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.keyboard())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	s := &screen{conn: conn}
	go s.read()
	// getty may not be there yet, or have shown its prompt long ago: Enter brings
	// a new one.
	if err := s.expect(ctx, "login: ", "\n"); err != nil {
		return "", err
	}
	named := time.Now()
	if err := errors.Join(s.typed("root"), s.expect(ctx, "assword: ", "")); err != nil {
		return "", err
	}
	// What is typed between the prompt and the end of the echo is thrown away, and a
	// slow guest takes long for everything.
	time.Sleep(max(time.Second, 2*time.Since(named)))
	if err := errors.Join(s.typed(password), s.expect(ctx, "# ", "")); err != nil {
		return "", err
	}
	// The shell puts the two halves of the mark together, so that what a terminal
	// echoes of the line is not taken for the answer.
	first, second := rand.Text()[:8], rand.Text()[:8]
	from := s.seen
	if err := s.typed(fmt.Sprintf("%s && echo %s''%s", command, first, second)); err != nil {
		return "", err
	}
	err = errors.Join(s.expect(ctx, first+second, ""), s.typed("exit"))
	return s.since(from), err
}

// screen is what the console shows.
type screen struct {
	conn net.Conn

	mu   sync.Mutex
	text strings.Builder
	seen int // of the text
}

func (s *screen) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.conn.Read(buf)
		s.mu.Lock()
		s.text.Write(buf[:n])
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// since returns what was shown between a moment of the past and what was expected
// last.
func (s *screen) since(from int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()[from:s.seen]
}

func (s *screen) typed(line string) error {
	_, err := io.WriteString(s.conn, line+"\n")
	return err
}

// expect returns when the text has come after all that was expected before. While
// it has not, nudge is typed every few seconds.
func (s *screen) expect(ctx context.Context, text, nudge string) error {
	last := time.Time{}
	for {
		s.mu.Lock()
		shown := s.text.String()[s.seen:]
		at := strings.Index(shown, text)
		if at >= 0 {
			s.seen += at + len(text)
		}
		s.mu.Unlock()
		if at >= 0 {
			return nil
		}
		if nudge != "" && time.Since(last) > 5*time.Second {
			last = time.Now()
			if _, err := io.WriteString(s.conn, nudge); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			if len(shown) > 300 {
				shown = "…" + shown[len(shown)-300:]
			}
			return fmt.Errorf("%w: %q did not come: %w: %q", ErrConsole, text, ctx.Err(), shown)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
