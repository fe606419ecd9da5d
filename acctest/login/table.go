// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// ErrNobody means that [Table] was given no enrolled account.
var ErrNobody = errors.New("no enrolled account to log in with")

// Account is somebody who tries to log in.
type Account struct {
	User     string
	Key      *Key
	Codes    *Codes // nil: not enrolled
	Password string // tried where a password is; empty tries a made-up one
}

// Plan says what [Table] has to work with.
type Plan struct {
	Server   Server
	Enrolled []Account // one is enough; with two nothing waits for the rate limit
	Stranger *Account  // has a login key here and is not enrolled; nil leaves that row out
	Dir      string    // for the clients' files; must exist
	NoPuTTY  bool      // leaves plink's row out

	Step func(text string)                 // called before each attempt; may be nil
	Wait func(why string, d time.Duration) // called before a wait; may be nil
}

// Row is one attempt of the table.
type Row struct {
	Attempt  string // for people
	User     string
	Client   string
	Expected string
	Seen     Result
	OK       bool // what was seen is what was expected, for the expected reason
}

// Rows is the table, in the order of its attempts for people.
type Rows []Row

// OK reports whether every attempt went as expected, and there was one.
func (rows Rows) OK() bool {
	return len(rows) > 0 && !slices.ContainsFunc(rows, func(r Row) bool { return !r.OK })
}

// Print writes the table.
func (rows Rows) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tattempt\tuser\tclient\texpected\tseen")
	for _, r := range rows {
		mark := "ok"
		if !r.OK {
			mark = "WRONG"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", mark, r.Attempt, r.User, r.Client, r.Expected, r.Seen)
	}
	return t.Flush()
}

func (rows Rows) String() string {
	var b strings.Builder
	_ = rows.Print(&b) // a strings.Builder does not fail
	return b.String()
}

// Table tries everything that tells whether a server wants a key and a code:
// key and code, key alone, code alone, key and wrong code, password, the same
// code again, key and backup code, the same backup code again, a user who is not
// enrolled, PuTTY. Six of the attempts count against the module's rate limit of
// three in 30 seconds for a user: two enrolled accounts share them and nothing
// waits; one alone takes about half a minute.
//
// The error is for what kept the table from being made. Whether it is as it should
// be is [Rows.OK].
func Table(ctx context.Context, p Plan) (Rows, error) {
	if len(p.Enrolled) == 0 {
		return nil, ErrNobody
	}
	t := &table{ctx: ctx, plan: p, ssh: OpenSSH{Dir: p.Dir}}
	first, second := p.Enrolled[0], p.Enrolled[len(p.Enrolled)-1]
	code, err := first.Codes.Next(ctx)
	if err != nil {
		return nil, err
	}
	wrong, err := first.Codes.Wrong()
	if err != nil {
		return nil, err
	}
	backup, err := second.Codes.Backup()
	if err != nil {
		return nil, err
	}
	both := []string{PublicKey, KeyboardInteractive}

	// The first three that count, then those that do not, and by then, where
	// there is one account only, a little less is left to wait.
	t.run(0, "key and code", t.ssh, first, expectIn, both, code)
	t.run(5, "same code again", t.ssh, first, expectRefused, both, code)
	t.run(3, "key and wrong code", t.ssh, first, expectRefused, both, wrong)
	t.run(1, "key alone", t.ssh, first, expectCode, []string{PublicKey})
	keyless := first
	keyless.Key = nil
	// This code is not spent: nobody asks for it.
	unspent, err := otherCode(first, code)
	if err != nil {
		return nil, err
	}
	t.run(2, "code alone", t.ssh, keyless, expectKey, []string{KeyboardInteractive}, unspent)
	t.run(4, "password", t.ssh, keyless, expectKey, []string{Password}, passwordOf(first))
	if p.Stranger != nil {
		t.run(8, "a user not enrolled", t.ssh, *p.Stranger, expectRefused, both, wrong)
	}
	t.run(6, "key and backup code", t.ssh, second, expectIn, both, backup)
	t.run(7, "same backup code again", t.ssh, second, expectRefused, both, backup)
	if !p.NoPuTTY {
		fresh, err := t.fresh(second)
		if err != nil {
			return nil, err
		}
		t.run(9, "key and code", PuTTY{Dir: p.Dir}, second, expectIn, both, fresh)
	}
	slices.SortFunc(t.rows, func(a, b placed) int { return a.place - b.place })
	var rows Rows
	for _, r := range t.rows {
		rows = append(rows, r.Row)
	}
	return rows, t.err
}

// Short tries what tells most in the fewest attempts: an enrolled account with key
// and code, with its key alone and with its password, and a stranger, who has a
// key there, with a made-up code and with the password. The client must be one
// that says what it was asked. One attempt counts against the rate limit.
func Short(ctx context.Context, c Client, s Server, enrolled, stranger Account) (Rows, error) {
	t := &table{ctx: ctx, plan: Plan{Server: s}}
	code, err := t.fresh(enrolled)
	if err != nil {
		return nil, err
	}
	both := []string{PublicKey, KeyboardInteractive}
	keyless := stranger
	keyless.Key = nil
	t.run(0, "key and code", c, enrolled, expectIn, both, code)
	t.run(1, "key alone", c, enrolled, expectUnasked, []string{PublicKey})
	t.run(2, "password", c, keyless, expectUnasked, []string{Password}, passwordOf(stranger))
	t.run(3, "a user not enrolled: key alone", c, stranger, expectUnasked, []string{PublicKey})
	t.run(4, "a user not enrolled: key and a code", c, stranger, expectAsked, both, "123456")
	var rows Rows
	for _, r := range t.rows {
		rows = append(rows, r.Row)
	}
	return rows, t.err
}

// Enter tries key and code once, with a fresh code and at a moment when the rate
// limit allows it.
func Enter(ctx context.Context, c Client, s Server, a Account) (Result, error) {
	done, err := a.Codes.Pace(ctx)
	if err != nil {
		return Result{}, err
	}
	defer done()
	code, err := a.Codes.Next(ctx) // after the wait, during which it might expire
	if err != nil {
		return Result{}, err
	}
	return c.Login(ctx, s, Try{User: a.User, Key: a.Key,
		Methods: []string{PublicKey, KeyboardInteractive}, Answers: []string{code}}), nil
}

// expectation is an outcome and the reason for it.
type expectation struct {
	text string
	met  func(Result) bool
}

var (
	expectIn = expectation{"in", func(r Result) bool {
		return r.Outcome == In && len(r.Prompts) == 1 && strings.Contains(r.Prompts[0], "Verification code:")
	}}
	expectRefused = expectation{"out, after a prompt", func(r Result) bool {
		return r.Outcome == Refused && len(r.Prompts) == 1 && strings.Contains(r.Prompts[0], "Verification code:") && r.KeyTaken()
	}}
	// For a client that does not say what the server would have gone on with.
	expectUnasked = expectation{"out, without a prompt", func(r Result) bool { return r.Outcome == Unasked }}
	expectAsked   = expectation{"out, after a prompt", func(r Result) bool { return r.Outcome == Refused && len(r.Prompts) == 1 }}
	expectCode    = expectation{"out, a code is wanted", func(r Result) bool {
		return r.Outcome == Unasked && r.KeyTaken()
	}}
	expectKey = expectation{"out, a key is wanted", func(r Result) bool {
		return r.Outcome == Unasked && slices.Equal(r.Remaining, []string{PublicKey})
	}}
)

type placed struct {
	Row
	place int
}

type table struct {
	ctx  context.Context
	plan Plan
	ssh  Client
	rows []placed
	err  error
}

// run makes one row, unless an earlier one could not be made.
func (t *table) run(place int, attempt string, c Client, a Account, e expectation, methods []string, answers ...string) {
	if t.err != nil {
		return
	}
	// Only who gets as far as the prompt is counted by the module.
	if a.Codes != nil && a.Key != nil && slices.Contains(methods, KeyboardInteractive) {
		if d := a.Codes.Wait(); d > 0 && t.plan.Wait != nil {
			t.plan.Wait("the rate limit of "+a.User, d)
		}
		done, err := a.Codes.Pace(t.ctx)
		if err != nil {
			t.err = err
			return
		}
		defer done()
	}
	if t.plan.Step != nil {
		t.plan.Step(fmt.Sprintf("%s: %s (%s)", a.User, attempt, c.Name()))
	}
	r := c.Login(t.ctx, t.plan.Server, Try{User: a.User, Key: a.Key, Methods: methods, Answers: answers})
	t.rows = append(t.rows, placed{
		Row:   Row{Attempt: attempt, User: a.User, Client: c.Name(), Expected: e.text, Seen: r, OK: e.met(r)},
		place: place,
	})
	t.err = t.ctx.Err()
}

// fresh returns a code for an attempt that may have to wait: taken only then.
func (t *table) fresh(a Account) (string, error) {
	if t.err != nil {
		return "", t.err
	}
	if d := a.Codes.Wait(); d > 0 {
		if t.plan.Wait != nil {
			t.plan.Wait("the rate limit of "+a.User, d)
		}
		if err := sleep(t.ctx, d); err != nil {
			return "", err
		}
	}
	return a.Codes.Next(t.ctx)
}

// otherCode returns a valid code that is not code, without marking it as used.
func otherCode(a Account, code string) (string, error) {
	for _, shift := range []time.Duration{0, step, -step} {
		other, err := a.Codes.at(shift)
		if err != nil || other != code {
			return other, err
		}
	}
	return "", errors.New("all codes are alike")
}

func passwordOf(a Account) string {
	if a.Password == "" {
		return "correct horse battery staple"
	}
	return a.Password
}
