// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package login tries to log in over SSH, as the users' own clients do it, and
// says what came of it.
//
// [OpenSSH] and [PuTTY] run the real clients on a terminal of their own and
// type what a person would; [Go] is golang.org/x/crypto/ssh. [Table] runs the
// attempts that tell whether a server demands a key and a code of everybody.
//
// # Promises
//
// A server that is down, a host key that is not the expected one and a client
// that gives up are [Failed], never a refusal: what is "out" was refused by the
// server, in its own words. What is "in" ran a command there as that user.
// Clients read no configuration, agent, known hosts or session of the machine
// they run on. A code is never spent on an attempt that the module's rate limit
// would refuse: [Codes] keeps count.
//
// # Limits
//
// The clock of this machine must be right to a few seconds, as a user's phone.
package login

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Server is where to log in.
type Server struct {
	Host     string
	Port     int
	HostKeys []string // "type base64", as in known_hosts; no other key is accepted
}

// Try is one attempt.
type Try struct {
	User    string
	Key     *Key     // nil offers none
	Methods []string // authentication methods the client goes through, in order
	Answers []string // to prompts, in order; one more prompt ends the attempt
}

// Methods of RFC 4252 and 4256.
const (
	PublicKey           = "publickey"
	KeyboardInteractive = "keyboard-interactive"
	Password            = "password"
)

// Client is a program that logs in.
type Client interface {
	Name() string
	Login(ctx context.Context, s Server, t Try) Result
}

// Outcome is what came of an attempt.
type Outcome int

// The outcomes.
const (
	Failed  Outcome = iota // no answer to the question: no connection, wrong host key, time out
	In                     // a command ran as the user
	Refused                // the server asked for something, got an answer and refused
	Unasked                // the server refused without asking for anything
)

func (o Outcome) String() string {
	switch o {
	case In:
		return "in"
	case Refused:
		return "out, after a prompt"
	case Unasked:
		return "out, without a prompt"
	}
	return "no answer"
}

// Result is what came of an attempt, and how.
type Result struct {
	Outcome   Outcome
	Prompts   []string      // as the client showed them
	Remaining []string      // methods the refusing server would have gone on with
	Banner    string        // what it said before, where the client passes that on
	Detail    string        // the client's last words; no answers are in it
	Took      time.Duration // from start to end of the client
}

// KeyTaken reports whether a refused attempt had passed the key: the server then
// goes on with other methods only.
func (r Result) KeyTaken() bool {
	return len(r.Remaining) == 1 && r.Remaining[0] == KeyboardInteractive
}

func (r Result) String() string {
	s := r.Outcome.String()
	switch {
	case r.Outcome == In && len(r.Prompts) == 0:
		s += ", without a prompt"
	case r.Outcome == Failed:
		s += ": " + r.Detail
	case r.Outcome != In && len(r.Remaining) > 0:
		s += fmt.Sprintf(" (server wants %s)", strings.Join(r.Remaining, ", "))
	}
	return s
}
