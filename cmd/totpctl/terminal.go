// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"unicode"

	"golang.org/x/term"
)

// errNoTerminal is returned where a passphrase is needed and nobody is there
// to ask.
var errNoTerminal = withHints(errors.New("a passphrase is needed and there is no terminal to ask for it"),
	"run totpctl in a terminal")

// isTerminal reports whether f is a terminal.
func isTerminal(f *os.File) bool {
	return term.IsTerminal(int(f.Fd()))
}

// terminalWidth is the width of f in columns, and 0 where f is no terminal or
// does not know.
func terminalWidth(f *os.File) int {
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// readSecret asks on the terminal, not on standard input and output, and reads
// a line without echo. The prompt is erased afterwards.
func readSecret(prompt string) (secret []byte, err error) {
	err = withTerminal(func(in, out *os.File) error {
		fmt.Fprintf(out, "%s ", strings.Map(replaceControl, prompt))
		defer clearLine(out)
		defer restoreOnInterrupt(in, out)()
		secret, err = term.ReadPassword(int(in.Fd()))
		return err
	})
	return secret, err
}

// withTerminal runs f with the terminal of this process: /dev/tty or the
// console, and standard input only where it is a terminal itself.
func withTerminal(f func(in, out *os.File) error) error {
	if runtime.GOOS == "windows" {
		in, err := os.OpenFile("CONIN$", os.O_RDWR, 0)
		if err != nil {
			return errNoTerminal
		}
		defer in.Close()
		out, err := os.OpenFile("CONOUT$", os.O_WRONLY, 0)
		if err != nil {
			return errNoTerminal
		}
		defer out.Close()
		return f(in, out)
	}
	if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		defer tty.Close()
		return f(tty, tty)
	}
	if isTerminal(os.Stdin) {
		return f(os.Stdin, os.Stdin)
	}
	return errNoTerminal
}

// restoreOnInterrupt gives the terminal its echo back when the user leaves the
// prompt by ctrl-c. The function it returns ends that.
func restoreOnInterrupt(in, out *os.File) (stop func()) {
	state, err := term.GetState(int(in.Fd()))
	if err != nil {
		return func() {}
	}
	interrupted := make(chan os.Signal, 1)
	done := make(chan struct{})
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-interrupted:
			term.Restore(int(in.Fd()), state)
			fmt.Fprint(out, "\r\n")
			os.Exit(1)
		case <-done:
		}
	}()
	return func() {
		signal.Stop(interrupted)
		close(done)
	}
}

// clearLine opens a new line, which works everywhere, and then erases the
// prompt above it where the terminal understands that.
func clearLine(out *os.File) {
	fmt.Fprint(out, "\r\n")
	if enableEscapes(out) == nil {
		fmt.Fprint(out, "\x1b[F\x1b[K")
	}
}

func replaceControl(r rune) rune {
	if unicode.IsControl(r) {
		return unicode.ReplacementChar
	}
	return r
}
