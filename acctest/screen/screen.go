// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package screen logs in on the console of a machine of the lab, as a person at its
// keyboard does.
package screen

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// ErrConsole means that the console did not answer as a login on it does.
var ErrConsole = errors.New("no login on the console")

// LogIn logs in on a console as root, with a password, runs a command, and logs out.
// It returns what the screen has shown since the command was typed. A command that a
// shell did not run to its end is an error that wraps [ErrConsole]. The caller closes
// the console, which ends the goroutine that reads from it.
func LogIn(ctx context.Context, console io.ReadWriter, password, command string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	s := &screen{console: console}
	go s.read()
	// getty may not be there yet, or have shown its prompt long ago: Enter brings
	// a new one.
	if err := s.expect(ctx, "login: ", nudge{text: "\n", every: 5 * time.Second}); err != nil {
		return "", err
	}
	named := time.Now()
	// getty throws the name away if it came together with that Enter, and asks again.
	again := nudge{text: "root\n", every: 30 * time.Second, at: "login: ", last: named}
	if err := errors.Join(s.typed("root"), s.expect(ctx, "assword: ", again)); err != nil {
		return "", err
	}
	// What is typed between the prompt and the end of the echo is thrown away, and a
	// slow guest takes long for everything.
	time.Sleep(max(time.Second, 2*time.Since(named)))
	if err := errors.Join(s.typed(password), s.expect(ctx, "# ", nudge{})); err != nil {
		return "", err
	}
	// The shell puts the two halves of the mark together, so that what a terminal
	// echoes of the line is not taken for the answer.
	first, second := rand.Text()[:8], rand.Text()[:8]
	from := s.seen
	if err := s.typed(fmt.Sprintf("%s && echo %s''%s", command, first, second)); err != nil {
		return "", err
	}
	err := errors.Join(s.expect(ctx, first+second, nudge{}), s.typed("exit"))
	return s.since(from), err
}

// screen is what the console shows.
type screen struct {
	console io.ReadWriter

	mu   sync.Mutex
	text strings.Builder
	seen int // of the text
}

func (s *screen) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.console.Read(buf)
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
	_, err := io.WriteString(s.console, line+"\n")
	return err
}

// nudge is typed from time to time while something does not come.
type nudge struct {
	text  string // empty: nothing is typed
	every time.Duration
	last  time.Time // when it was typed last
	at    string    // it is typed only if this is what the screen shows last
}

// expect returns when the text has come after all that was expected before.
func (s *screen) expect(ctx context.Context, text string, n nudge) error {
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
		if n.text != "" && time.Since(n.last) > n.every && strings.HasSuffix(shown, n.at) {
			n.last = time.Now()
			if _, err := io.WriteString(s.console, n.text); err != nil {
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
