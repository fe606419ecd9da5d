// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

// How totpctl speaks. The rules are those of age:
//
//   - What needs an answer from a person goes to the terminal itself, also
//     where standard input and output are redirected, and is erased afterwards
//     if possible. A passphrase is never echoed.
//
//   - Everything else goes to standard error with a "totpctl:" prefix. No
//     capitalised initials and no full stops at the end. What is wrong and what
//     to try are separate lines: "error:" (one) and "hint:" (any number).
//
//   - Standard output carries what was asked for, and nothing else.
//
// Text that came out of a file or from a server is quoted, so that it cannot steer a
// terminal; what is printed on standard error cannot in any case.

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"unicode"
)

func printf(format string, v ...any) {
	fmt.Fprintln(os.Stderr, harmless(fmt.Sprintf("totpctl: "+format, v...)))
}

// harmless replaces what a terminal would act upon, or show in another order:
// control characters but the ends of lines, and Unicode's invisible ones.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func warningf(format string, v ...any) {
	printf("warning: "+format, v...)
}

func hintf(format string, v ...any) {
	printf("hint: "+format, v...)
}

// report prints an error and the hints in its chain.
func report(err error) {
	printf("error: %v", err)
	for _, hint := range hintsOf(err) {
		hintf("%s", hint)
	}
}

// A usageError is a wrong call: an option or an argument, not what was done
// with it.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usageErrorf(format string, v ...any) error {
	return usageError{fmt.Errorf(format, v...)}
}

// A runError is the failure of a command that was called rightly.
type runError struct{ error }

func (e *runError) Unwrap() error { return e.error }

// A hintedError says what is wrong by its error and what to try by its hints.
type hintedError struct {
	error
	hints []string
}

func (e *hintedError) Unwrap() error { return e.error }

func withHints(err error, hints ...string) error {
	return &hintedError{err, hints}
}

func hintsOf(err error) []string {
	var hints []string
	for err != nil {
		if h, ok := err.(*hintedError); ok {
			hints = append(hints, h.hints...)
		}
		err = errors.Unwrap(err)
	}
	return hints
}

// few shortens a long list, and says so.
func few(list []string) []string {
	const most = 20
	if len(list) <= most {
		return list
	}
	return append(slices.Clone(list[:most]), fmt.Sprintf("and %d more", len(list)-most))
}

// plural is "1 envelope", "2 envelopes".
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// ranges is "3, 7-9 and 12" for sorted numbers.
func ranges(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		if i == j {
			parts = append(parts, fmt.Sprint(numbers[i]))
		} else {
			parts = append(parts, fmt.Sprintf("%d-%d", numbers[i], numbers[j]))
		}
		i = j + 1
	}
	if n := len(parts); n > 1 {
		return strings.Join(parts[:n-1], ", ") + " and " + parts[n-1]
	}
	return strings.Join(parts, "")
}

// wrap says text in place of what err says, and remains err for errors.Is.
func wrap(text string, err error) error {
	return fmt.Errorf("%s%w", text, silent{err})
}

// silent is an error without words of its own.
type silent struct{ error }

func (silent) Error() string   { return "" }
func (s silent) Unwrap() error { return s.error }
