// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"unicode"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
)

// writer is a place for a command's output. After a cancelled command its
// streams may still be written to, so that all of ours lock.
type writer interface{ io.Writer }

// execute runs a command on the guest and returns its exit status. It returns as
// soon as ctx is done, whatever becomes of the command: communicators know no
// way to stop one.
func execute(ctx context.Context, comm packersdk.Communicator, command string, out, errOut writer) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	cmd := &packersdk.RemoteCmd{Command: command, Stdout: out, Stderr: errOut}
	if err := comm.Start(ctx, cmd); err != nil {
		return 0, err
	}
	done := make(chan int, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case status := <-done:
		return status, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// capped keeps the first bytes of what is written to it: 64 KiB, or limit.
type capped struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	limit int
	over  bool // there was more
}

func (c *capped) Write(data []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.limit
	if limit == 0 {
		limit = 64 << 10
	}
	keep := data
	if room := limit - c.buf.Len(); len(keep) > room {
		keep, c.over = keep[:room], true
	}
	c.buf.Write(keep)
	return len(data), nil
}

func (c *capped) Bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.buf.Bytes())
}

func (c *capped) String() string { return string(c.Bytes()) }
func (c *capped) Len() int       { return len(c.Bytes()) }

// The longest line that is shown, in bytes, and how many of the last ones an
// error repeats.
const (
	maxLine = 2 << 10
	maxTail = 12
)

// progress says each line that is written to it, and keeps the last ones. A line
// that starts with hide is kept apart and not said.
type progress struct {
	ui     packersdk.Ui
	hide   string
	mu     sync.Mutex
	part   []byte
	hidden string
	tail   []string
}

func (p *progress) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for rest := data; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if room := maxLine - len(p.part); len(line) > room {
			line = line[:room]
		}
		p.part = append(p.part, line...)
		if whole {
			p.line()
		}
		rest = after
	}
	return len(data), nil
}

// flush says the last line if it has no end.
func (p *progress) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line()
}

func (p *progress) line() {
	line := clean(string(p.part))
	p.part = p.part[:0]
	switch {
	case line == "":
	case p.hide != "" && strings.HasPrefix(line, p.hide):
		p.hidden = line
	default:
		p.ui.Say("totp:   " + line)
		p.tail = append(p.tail, line)
		if len(p.tail) > maxTail {
			p.tail = p.tail[1:]
		}
	}
}

// clean returns what a terminal would show of a line, without the means to
// command the terminal: the guest's text is not ours.
func clean(line string) string {
	line = strings.TrimRightFunc(line, unicode.IsSpace)
	if i := strings.LastIndexByte(line, '\r'); i >= 0 {
		line = line[i+1:]
	}
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(line, "?"))
}

// lastLine returns the last line with something in it, ready to be shown.
func lastLine(s string) string {
	last := ""
	for line := range strings.Lines(s) {
		if line := clean(line); line != "" {
			last = line
		}
	}
	return last
}
