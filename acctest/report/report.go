// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package report tells a person what the lab is doing and how long it took.
//
// Work that takes longer than ten seconds says every ten seconds that it is
// still going on, with the last thing that is known of it.
package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// interval is how long nothing may be said.
const interval = 10 * time.Second

// Reporter writes lines, each as a whole. Its methods may be called from
// several goroutines.
type Reporter struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
	now   func() time.Time
	every time.Duration
	steps int
}

// New returns a reporter whose clock starts now.
func New(w io.Writer) *Reporter {
	r := &Reporter{w: w, now: time.Now, every: interval}
	r.start = r.now()
	return r
}

// Step does one numbered step, says so, and how long it took.
func (r *Reporter) Step(title string, do func() error) error {
	r.mu.Lock()
	r.steps++
	fmt.Fprintf(r.w, "\n%d. %s  [at %s]\n", r.steps, title, clock(r.now().Sub(r.start)))
	r.mu.Unlock()
	began := r.now()
	if err := do(); err != nil {
		r.Sayf("failed after %s", short(r.now().Sub(began)))
		return fmt.Errorf("%s: %w", title, err)
	}
	r.Sayf("done in %s", short(r.now().Sub(began)))
	return nil
}

// Sayf writes a line, or several, below the step.
func (r *Reporter) Sayf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(fmt.Sprintf(format, args...)) {
		fmt.Fprintf(r.w, "   %s\n", strings.TrimRight(line, "\r\n"))
	}
}

// Show writes text as it is, for what must not be indented or cut.
func (r *Reporter) Show(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(r.w, "\n%s\n\n", strings.TrimRight(text, "\n"))
}

// Busy says every ten seconds, until stop is called, that something goes on,
// and what detail returns; nil for no detail.
func (r *Reporter) Busy(what string, detail func() string) (stop func()) {
	began := r.now()
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(r.every)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			line := fmt.Sprintf("… %s, %s", what, short(r.now().Sub(began)))
			if detail != nil {
				if text := printable(detail()); text != "" {
					line += ": " + text
				}
			}
			r.Sayf("%s", line)
		}
	}()
	return sync.OnceFunc(func() { close(done); <-gone })
}

// Elapsed returns the time since the reporter was made.
func (r *Reporter) Elapsed() time.Duration { return r.now().Sub(r.start) }

// Lines returns a writer whose lines are said, each with prefix.
func (r *Reporter) Lines(prefix string) io.Writer { return &lines{r: r, prefix: prefix} }

type lines struct {
	mu     sync.Mutex
	r      *Reporter
	prefix string
	rest   []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.rest = rest
		if text := strings.TrimRight(string(line), "\r"); text != "" {
			l.r.Sayf("%s%s", l.prefix, text)
		}
	}
}

// printable makes one short line of what may be a piece of a console log.
func printable(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
	if runes := []rune(s); len(runes) > 60 {
		s = string(runes[:60]) + "…"
	}
	return s
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

func short(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	if d < time.Minute {
		return fmt.Sprintf("%.0f s", d.Seconds())
	}
	return clock(d) + " min"
}
