// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package browser drives a real, headless Chromium by its DevTools protocol
// (https://chromedevtools.github.io/devtools-protocol), as a person would: by
// keys, the clipboard, the mouse's drag and drop, and by looking at the picture.
//
// It speaks over a pipe, in a few lines of its own: the libraries for it bring
// the protocol's hundreds of types, which take minutes to compile in each of the
// ways that CI builds tests.
//
// # Limits
//
// One process serves a test binary's browser; each [Page] has a context of its
// own, without cookies, storage or downloads of another. Nothing here sleeps:
// what is waited for is an event, or a change of the page.
package browser

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// patience is how long an answer may take before the browser counts as hung. A
// loaded machine needs seconds for the first page.
const patience = 2 * time.Minute

// A Browser is a running Chromium.
type Browser struct {
	t       *testing.T
	board   *Page // the tab from which texts get onto the clipboard
	send    io.WriteCloser
	sending sync.Mutex

	mu      sync.Mutex
	next    int
	waiting map[int]chan message
	pages   map[string]*Page // by session
	all     *Page            // gets the browser's own events
	err     error            // why it has ended
}

// message is a command, its answer, or an event.
type message struct {
	ID        int             `json:"id,omitempty"`
	Session   string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    json.RawMessage `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	ErrorText *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start starts Chromium, until the test ends. Where there is none the test is
// skipped, unless CI=true is set.
func Start(t *testing.T) *Browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("chromium is needed: %v", err)
		}
		t.Skipf("chromium is not installed: %v", err)
	}
	toBrowser, send, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	receive, fromBrowser, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--force-device-scale-factor=1", "--host-resolver-rules=MAP * ~NOTFOUND",
		"--user-data-dir="+home, "--remote-debugging-pipe", "about:blank")
	cmd.Env = append(os.Environ(), "HOME="+home, "LANG=C.UTF-8", "TZ=UTC")
	cmd.ExtraFiles = []*os.File{toBrowser, fromBrowser}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	toBrowser.Close()
	fromBrowser.Close()
	b := &Browser{t: t, send: send, waiting: make(map[int]chan message), pages: make(map[string]*Page)}
	b.all = &Page{b: b, arrived: make(chan struct{}, 1)}
	go b.receive(receive)
	t.Cleanup(func() {
		b.call("", "Browser.close", nil, nil)
		send.Close()
		ended := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Wait()
		ended.Stop()
		receive.Close()
	})
	return b
}

// receive reads messages, each of which ends with a NUL byte.
func (b *Browser) receive(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes(0)
		if err != nil {
			b.end(fmt.Errorf("chromium has ended: %w", err))
			return
		}
		var m message
		if err := json.Unmarshal(line[:len(line)-1], &m); err != nil {
			b.end(fmt.Errorf("chromium says %.100q: %w", line, err))
			return
		}
		b.mu.Lock()
		if m.ID != 0 {
			if c := b.waiting[m.ID]; c != nil {
				delete(b.waiting, m.ID)
				c <- m
			}
		} else if p := b.page(m.Session); p != nil {
			p.events = append(p.events, m)
			select {
			case p.arrived <- struct{}{}:
			default:
			}
		}
		b.mu.Unlock()
	}
}

func (b *Browser) page(session string) *Page {
	if session == "" {
		return b.all
	}
	return b.pages[session]
}

func (b *Browser) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
	for id, c := range b.waiting {
		delete(b.waiting, id)
		close(c)
	}
}

// call sends a command and waits for its answer.
func (b *Browser) call(session, method string, params, result any) error {
	if params == nil {
		params = struct{}{}
	}
	raw, err := json.Marshal(params)
	if err != nil {
		return err
	}
	answer := make(chan message, 1)
	b.mu.Lock()
	if b.err != nil {
		defer b.mu.Unlock()
		return b.err
	}
	b.next++
	id := b.next
	b.waiting[id] = answer
	b.mu.Unlock()
	line, err := json.Marshal(message{ID: id, Session: session, Method: method, Params: raw})
	if err != nil {
		return err
	}
	b.sending.Lock()
	_, err = b.send.Write(append(line, 0))
	b.sending.Unlock()
	if err != nil {
		return err
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return errors.New("chromium has ended")
		case m.ErrorText != nil:
			return fmt.Errorf("%s: %s", method, m.ErrorText.Message)
		case result == nil:
			return nil
		}
		return json.Unmarshal(m.Result, result)
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer", method)
	}
}
