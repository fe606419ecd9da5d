// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// Version is the version of the report's JSON form. Fields may be added to a
// report of the same version.
const Version = 1

// Report is what a run saw. Its JSON form is documented in docs/verify.md. No
// key and no code is in it.
type Report struct {
	V            int         `json:"v"`
	Host         string      `json:"host"`
	Port         int         `json:"port"`
	User         string      `json:"user"`
	Address      string      `json:"address,omitempty"` // that was connected to
	Server       string      `json:"server,omitempty"`  // its version, as it says
	Time         time.Time   `json:"time"`              // of the start, in UTC
	Result       Result      `json:"result"`
	Error        string      `json:"error,omitempty"`
	CodeAttempts int         `json:"code_attempts"` // that the PAM module may have counted
	HostKey      *HostKey    `json:"host_key,omitempty"`
	Algorithms   *Algorithms `json:"algorithms,omitempty"`
	Rows         []Row       `json:"rows"`
}

// Result is what a report comes to.
type Result string

// The results. A wrong row outweighs that a later one found no answer.
const (
	ResultOK          Result = "ok"          // all rows that were tried are as expected
	ResultWrong       Result = "wrong"       // a row is not
	ResultUnreachable Result = "unreachable" // the server did not answer, or no longer
	ResultFailed      Result = "failed"      // something on this side kept rows from being tried
)

// HostKey is the key that the server showed, and what knows it.
type HostKey struct {
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"`
	VerifiedBy  string `json:"verified_by"` // card, known_hosts, or empty
}

// Algorithms are those that the server offers, both directions together.
type Algorithms struct {
	Kex       []Algorithm `json:"kex"`
	HostKeys  []Algorithm `json:"host_keys"`
	Ciphers   []Algorithm `json:"ciphers"`
	MACs      []Algorithm `json:"macs"`
	StrictKex bool        `json:"strict_kex"`
}

// Row is one attempt.
type Row struct {
	ID       string `json:"id"`
	Attempt  string `json:"attempt"` // for people, as all that follows but the status
	Expected string `json:"expected"`
	Seen     string `json:"seen"`
	Status   Status `json:"status"`
	Why      string `json:"why,omitempty"` // of a row that is wrong or was not tried
}

// Status is how a row came out.
type Status string

// The statuses.
const (
	StatusOK       Status = "ok"
	StatusWrong    Status = "wrong"
	StatusNotTried Status = "not-tried"
)

// What is tried, in this order.
const (
	rowHostKey     = "host-key"
	rowKex         = "kex"
	rowHostKeyAlgs = "host-key-algorithms"
	rowCiphers     = "ciphers"
	rowMACs        = "macs"
	rowStrictKex   = "strict-kex"
	rowNothing     = "nothing"
	rowPassword    = "password"
	rowCodeAlone   = "code-alone"
	rowUnknownKey  = "unknown-key"
	rowKeyAlone    = "key-alone"
	rowPrompt      = "prompt"
	rowKeyCode     = "key-and-code"
	rowSameCode    = "same-code-again"
	rowWrongCode   = "wrong-code"
)

const stockPrompt = "Verification code: "

// attempts are the rows before anything is tried.
var attempts = []Row{
	{ID: rowHostKey, Attempt: "host key", Expected: "a known one"},
	{ID: rowKex, Attempt: "key exchanges offered", Expected: "none weak"},
	{ID: rowHostKeyAlgs, Attempt: "host key algorithms offered", Expected: "none weak"},
	{ID: rowCiphers, Attempt: "ciphers offered", Expected: "none weak"},
	{ID: rowMACs, Attempt: "MACs offered", Expected: "none weak"},
	{ID: rowStrictKex, Attempt: "truncation (Terrapin)", Expected: "prevented"},
	{ID: rowNothing, Attempt: "no key, no code", Expected: "out, wants publickey"},
	{ID: rowPassword, Attempt: "password", Expected: "out"},
	{ID: rowCodeAlone, Attempt: "code without a key", Expected: "out, no prompt"},
	{ID: rowUnknownKey, Attempt: "a key made up", Expected: "out"},
	{ID: rowKeyAlone, Attempt: "key alone", Expected: "out, wants keyboard-interactive"},
	{ID: rowPrompt, Attempt: "prompt", Expected: fmt.Sprintf("%q", stockPrompt)},
	{ID: rowKeyCode, Attempt: "key and code", Expected: "in"},
	{ID: rowSameCode, Attempt: "the same code again", Expected: "out"},
	{ID: rowWrongCode, Attempt: "key and wrong code", Expected: "out"},
}

func newReport(t Target) Report {
	r := Report{V: Version, Host: t.Host, Port: t.Port, User: t.User, Time: time.Now().UTC().Truncate(time.Second), Rows: slices.Clone(attempts)}
	for i := range r.Rows {
		r.Rows[i].Status = StatusNotTried
	}
	return r
}

// Count returns how many rows have a status.
func (r Report) Count(s Status) int {
	n := 0
	for _, row := range r.Rows {
		if row.Status == s {
			n++
		}
	}
	return n
}

// Print writes the table for people.
func (r Report) Print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tattempt\texpected\tseen")
	for _, row := range r.Rows {
		mark, seen := string(row.Status), row.Seen
		switch row.Status {
		case StatusWrong:
			mark = "WRONG"
			if row.Why != "" {
				seen += " (" + row.Why + ")"
			}
		case StatusNotTried:
			mark = "not tried"
			if seen != "" {
				seen += ": "
			}
			seen += row.Why
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", mark, row.Attempt, row.Expected, seen)
	}
	return t.Flush()
}

// finish draws the conclusion.
func (r *Report) finish(err error) {
	switch {
	case err == nil:
		r.Result = ResultOK
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrNotSSH), errors.Is(err, ErrAlgorithms):
		r.Result = ResultUnreachable
	default:
		r.Result = ResultFailed
	}
	if err != nil {
		r.Error = err.Error()
	}
	if r.Count(StatusWrong) > 0 {
		r.Result = ResultWrong
	}
	for i := range r.Rows {
		if row := &r.Rows[i]; row.Status == StatusNotTried && row.Why == "" {
			row.Why = "the run ended before"
		}
	}
}

func (r *Report) set(id string, s Status, seen, why string) {
	i := slices.IndexFunc(r.Rows, func(row Row) bool { return row.ID == id })
	r.Rows[i].Status, r.Rows[i].Seen, r.Rows[i].Why = s, seen, why
}

func (r *run) ok(id, seen string)         { r.report.set(id, StatusOK, seen, "") }
func (r *run) wrong(id, seen, why string) { r.report.set(id, StatusWrong, seen, why) }

// skip gives the reason for rows that have not been tried and have none yet; no
// IDs are all rows.
func (r *run) skip(why string, ids ...string) {
	for i := range r.report.Rows {
		row := &r.report.Rows[i]
		if row.Status == StatusNotTried && row.Why == "" && (len(ids) == 0 || slices.Contains(ids, row.ID)) {
			row.Why = why
		}
	}
}
