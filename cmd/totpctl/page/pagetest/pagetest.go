// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package pagetest runs the script of the page that opens envelopes under node,
// for tests that hold it to what Go does with the same input.
//
// It runs the very script that stands in the built page, not its sources.
package pagetest

import (
	"bufio"
	_ "embed"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/cmd/totpctl/page"
)

//go:embed run.mjs
var script []byte

// Node is a running node with the page's script in it.
type Node struct {
	in  io.WriteCloser
	out *bufio.Reader
}

// Start starts node, until the test ends. Where there is none the test is
// skipped, unless CI=true is set.
func Start(t testing.TB) *Node {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("node is needed: %v", err)
		}
		t.Skipf("node is not installed: %v", err)
	}
	dir := t.TempDir()
	run, html := filepath.Join(dir, "run.mjs"), filepath.Join(dir, "page.html")
	for name, data := range map[string][]byte{run: script, html: page.HTML()} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(path, run, html)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("node: %v", err)
		}
	})
	return &Node{in, bufio.NewReader(out)}
}

// A Finding is an envelope, or what is left of one, as the page sees it.
type Finding struct {
	Form, ID, User string
	Line           int
	File           []byte
	Fault          string
	Missing        []int
	Lines          int
}

// Find returns what the page finds in an input.
func (n *Node) Find(t testing.TB, input []byte) []Finding {
	t.Helper()
	var found []Finding
	n.call(t, map[string]any{"op": "find", "input": input}, &found)
	return found
}

// Opened is a card that the page has opened.
type Opened struct {
	Card    map[string]any
	Stanzas int
	Texts   []string // what the page says of it, in order
	Origin  []string // and of its origin
	QR      [][]bool // true for dark
}

// Result is what the page does with an input: cards, or a problem that stands in
// their place, by its code.
type Result struct {
	Opened  []Opened
	Failed  []string
	Forged  bool // two of the cards contradict each other
	Problem string
	Said    string // the problem in words
}

// Open opens an input with the keys in a text.
func (n *Node) Open(t testing.TB, input []byte, keys string) Result {
	t.Helper()
	var r Result
	n.call(t, map[string]any{"op": "open", "input": input, "keys": []byte(keys)}, &r)
	return r
}

// ParseCard reads the text of an opened envelope, and returns the code of the
// problem with it, or nothing.
func (n *Node) ParseCard(t testing.TB, text []byte) string {
	t.Helper()
	var problem string
	n.call(t, map[string]any{"op": "parse", "input": text}, &problem)
	return problem
}

// Key is a key that the page has made.
type Key struct{ Identity, Recipient, File string }

// MakeKey makes a key.
func (n *Node) MakeKey(t testing.TB) Key {
	t.Helper()
	var k Key
	n.call(t, map[string]any{"op": "make"}, &k)
	return k
}

// call sends one line of JSON and reads one. Bytes are base64 in both.
func (n *Node) call(t testing.TB, question, answer any) {
	t.Helper()
	line, err := json.Marshal(question)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	line, err = n.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("node: %v", err)
	}
	if err := json.Unmarshal(line, answer); err != nil {
		t.Fatalf("node answers %.200q: %v", line, err)
	}
}
