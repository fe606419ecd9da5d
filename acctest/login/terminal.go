// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/creack/pty"
)

// timeout is how long one client may take; an emulated machine is slow.
const timeout = 2 * time.Minute

var (
	// promptEnd is a line that waits for an answer of a person.
	promptEnd = regexp.MustCompile(`(?i)(?:^|[\r\n])([^\r\n]*(?:verification code|password|passphrase for [^\r\n]*)[^\r\n:]*: ?)$`)

	// hostKeyQuestion is what a client asks that was given the wrong host key.
	hostKeyQuestion = regexp.MustCompile(`(?i)\(yes/no|store key in cache|update cached key|host key is not cached`)

	// returnToBegin is PuTTY's guard against prompts that a server makes up.
	returnToBegin = regexp.MustCompile(`(?i)press return to begin session[^\r\n]*$`)
)

// errAsked ends a client that asks more than there are answers.
var errAsked = errors.New("asked again")

// errHostKey ends a client that wants to know whether a host key is right.
var errHostKey = errors.New("the host key is not the expected one")

// dialogue is what a client and a person at its terminal said to each other.
type dialogue struct {
	text    string // all that the terminal showed
	prompts []string
	err     error // errAsked, errHostKey, ctx's, or what the client ended with
}

// converse runs a client on a new terminal and answers its prompts.
func converse(ctx context.Context, cmd *exec.Cmd, answers []string) dialogue {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	term, err := pty.Start(cmd)
	if err != nil {
		return dialogue{err: err}
	}
	defer term.Close()
	chunks := make(chan string)
	go func() {
		defer close(chunks)
		buf := make([]byte, 4096)
		for {
			n, err := term.Read(buf)
			if n > 0 {
				chunks <- string(buf[:n])
			}
			if err != nil { // EIO: the client has closed the terminal
				return
			}
		}
	}()
	var d dialogue
	answered := 0 // up to where in text prompts have been answered
	stop := func(err error) {
		if d.err == nil {
			d.err = err
			_ = cmd.Process.Kill()
		}
	}
	for open := true; open; {
		select {
		case <-ctx.Done():
			stop(ctx.Err())
			_ = term.Close()
			for range chunks {
			}
			open = false
		case chunk, ok := <-chunks:
			if !ok {
				open = false
				break
			}
			d.text += chunk
			fresh := d.text[answered:]
			switch {
			case d.err != nil:
			case hostKeyQuestion.MatchString(fresh):
				stop(errHostKey)
			case returnToBegin.MatchString(fresh):
				answered = len(d.text)
				_, _ = term.WriteString("\r")
			default:
				prompt := promptEnd.FindStringSubmatch(fresh)
				if prompt == nil {
					break
				}
				answered = len(d.text)
				if len(d.prompts) == len(answers) {
					stop(errAsked)
					break
				}
				_, _ = term.WriteString(answers[len(d.prompts)] + "\r")
				d.prompts = append(d.prompts, strings.TrimSpace(prompt[1]))
			}
		}
	}
	if err := cmd.Wait(); d.err == nil {
		d.err = err
	}
	return d
}

// proof is a command whose output only somebody who ran it as that user has.
type proof struct{ command, output string }

func newProof(user string) proof {
	nonce := make([]byte, 8)
	_, _ = rand.Read(nonce) // never fails
	n := hex.EncodeToString(nonce)
	return proof{
		command: fmt.Sprintf(`echo "in-%s-as-$(id -un)"`, n),
		output:  fmt.Sprintf("in-%s-as-%s", n, user),
	}
}

// lastWords returns the last non-empty lines that a terminal showed, in one.
func lastWords(text string) string {
	var lines []string
	for _, line := range strings.FieldsFunc(text, func(r rune) bool { return r == '\r' || r == '\n' }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-3):], " / ")
}
