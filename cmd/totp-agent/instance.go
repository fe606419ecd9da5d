// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/bake"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

// The verbs of a running instance.

func enrollVerb(*flag.FlagSet) func(env, []string) error {
	return func(e env, args []string) error {
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		// What a login depends on has to be right before sshd starts. If it cannot be
		// repaired, SSH is closed, and users are still enrolled.
		broken := e.repair(t, true)
		o := e.options()
		if c, err := openConsole(target.Console, consolePatience); err == nil {
			defer c.Close()
			o.Console = c
		}
		_, err = enroll.Run(e, t, o)
		return errors.Join(broken, err)
	}
}

func layerVerb(*flag.FlagSet) func(env, []string) error {
	return func(e env, args []string) error {
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		return enroll.Hand(t, os.Stdin)
	}
}

func (e env) options() enroll.Options {
	return enroll.Options{Agent: version.String(), Log: e.err}
}

// loginsVerb says nothing where there is nothing to do: it runs after each login.
func loginsVerb(*flag.FlagSet) func(env, []string) error {
	return func(e env, args []string) error {
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		return enroll.Logins(e, t, e.options())
	}
}

func statusVerb(fs *flag.FlagSet) func(env, []string) error {
	asJSON := fs.Bool("json", false, "print JSON")
	return func(e env, args []string) error {
		t, err := e.openNone(args)
		if err != nil {
			return err
		}
		// What a login depends on is looked at now: it may have changed since the last
		// run.
		var lp loginPath
		lp.Closed = bake.Closed(t)
		lp.Findings, err = bake.CheckLogin(t)
		st, errStatus := enroll.ReadStatus(e, t)
		switch {
		case errStatus != nil && *asJSON:
		case *asJSON:
			enc := json.NewEncoder(e.out)
			enc.SetIndent("", "  ")
			errStatus = enc.Encode(struct {
				*enroll.Status
				Login loginPath `json:"login"`
			}{st, lp})
		default:
			lp.print(e.out)
			if errStatus == nil {
				errStatus = printStatus(e.out, st)
			}
		}
		if errStatus == nil && len(st.Problems) > 0 {
			errStatus = fmt.Errorf("%d %w", len(st.Problems), errAttention)
		}
		if err == nil && (lp.Closed != "" || judge(lp.Findings) != nil) {
			err = errLogin
		}
		return errors.Join(errStatus, err)
	}
}

// errLogin ends a status that has something to say about the login itself.
var errLogin = errors.New("the SSH login needs attention; run: totp-agent check --repair")

// A loginPath is how the files stand that every login depends on.
type loginPath struct {
	Closed   string         `json:"closed,omitempty"` // why SSH is closed
	Findings []bake.Finding `json:"findings,omitempty"`
}

func (l loginPath) print(w io.Writer) {
	if l.Closed != "" {
		fmt.Fprintf(w, "%s\n", l.Closed)
	}
	printFindings(w, l.Findings)
}

// errAttention ends a status that lists problems.
var errAttention = errors.New("problem(s) to solve; docs/recovery.md explains each code")

func printStatus(w io.Writer, st *enroll.Status) error {
	fmt.Fprintf(w, "identity: %s\nlast run: %s\n", st.Identity, st.Time.Format(time.RFC3339))
	for _, l := range st.Remarks {
		fmt.Fprintf(w, "passed over: %s layer: %s\n", l.Layer, l.Error)
	}
	if st.Clock != nil && st.Clock.State != target.ClockSynchronised {
		fmt.Fprintf(w, "clock: %s\n", st.Clock)
	}
	if st.NoticeCode != "" {
		fmt.Fprintf(w, "notice: no user can log in over SSH: %s (console and SSH banner say so)\n", st.NoticeCode)
	}
	for _, p := range st.Problems {
		fmt.Fprintf(w, "\nproblem: %s: %s", p.Code, p.What)
		if p.User != "" {
			fmt.Fprintf(w, "\n  user: %s", p.User)
		}
		fmt.Fprintf(w, "\n  to end it: %s\n", p.Fix)
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "USER\tENROLLED\tCAN LOG IN\tLOGGED IN\tENVELOPE\tCARD")
	for _, u := range st.Users {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", u.Name, yes(u.Enrolled), canLogIn(u), yes(u.Used), or(u.ID, "-"), or(u.Card, "-"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, u := range st.Users {
		if u.Why != "" && u.Code == "" { // else a problem says it
			fmt.Fprintf(w, "%s: %s\n", u.Name, u.Why)
		}
		if u.Remark != "" {
			fmt.Fprintf(w, "%s: %s\n", u.Name, u.Remark)
		}
		if u.RateLimit != nil && !u.RateLimit.Limited { // else a problem says it
			fmt.Fprintf(w, "%s: %s\n", u.Name, u.RateLimit)
		}
		if u.Login != nil {
			for _, p := range u.Login.Problems {
				fmt.Fprintf(w, "%s: cannot log in: %v\n", u.Name, p)
			}
			for _, p := range u.Login.Unknown {
				fmt.Fprintf(w, "%s: login not judged: %v\n", u.Name, p)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(u.Delivery)) {
			fmt.Fprintf(w, "%s: %s: %s\n", u.Name, name, attempt(u.Delivery[name]))
		}
	}
	return nil
}

// canLogIn is the verdict of a user's login, in one word.
func canLogIn(u enroll.UserStatus) string {
	if u.Login == nil {
		return "-"
	}
	switch u.Login.Verdict {
	case enroll.LoginPossible:
		return "yes"
	case enroll.LoginImpossible:
		return "NO"
	}
	return u.Login.Verdict
}

// attempt says what a channel has last done with an envelope.
func attempt(d enroll.Delivery) string {
	s := fmt.Sprintf("%s, try %d at %s", d.State, d.Tries, d.Last.UTC().Format(time.RFC3339))
	if d.State == deliver.Tampered {
		s = strings.ToUpper(d.State) + strings.TrimPrefix(s, d.State) + ", what is there is not from this machine"
	}
	if d.Error != "" {
		s += ": " + d.Error
	}
	if !d.Next.IsZero() {
		s += "; next try not before " + d.Next.UTC().Format(time.RFC3339)
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func resetVerb(fs *flag.FlagSet) func(env, []string) error {
	var recipients []string
	fs.Func("recipient", "seal to `R` (an age or SSH public key) and not to the policy's recipients; may be repeated", func(s string) error {
		recipients = append(recipients, s)
		return nil
	})
	adopt := fs.Bool("adopt-machine", false, "bind a server whose identity is unknown to its machine-id; removes all secrets that it has")
	return func(e env, args []string) error {
		if len(args) > 1 || len(args) == 0 && (!*adopt || len(recipients) > 0) {
			return fmt.Errorf("%w: one user name is needed; usage: totp-agent reset [--adopt-machine] [--recipient R]... USER", errUsage)
		}
		t, err := e.open()
		if err != nil {
			return err
		}
		o := e.options()
		o.AdoptMachine = *adopt
		if *adopt {
			fmt.Fprint(e.err, adoptMeaning)
		}
		if len(args) == 0 {
			_, err := enroll.Run(e, t, o)
			return err
		}
		res, err := enroll.Reset(e, t, args[0], recipients, o)
		if res == nil {
			return err
		}
		err = errors.Join(printReset(e, t, args[0], res), err)
		if err != nil || !res.Adopted || !t.Live() {
			return err
		}
		// The other users have lost their secrets too.
		if _, err := enroll.Run(e, t, e.options()); err != nil {
			return fmt.Errorf("%s has a new secret, but enrolling the other users failed; run: totp-agent enroll\n%w", args[0], err)
		}
		return nil
	}
}

// adoptMeaning is what root reads before a machine is adopted.
const adoptMeaning = `reset: --adopt-machine: if the identity of this server is unknown, the server is bound to its machine-id.
reset: --adopt-machine: all secrets made before are removed, since they may belong to the server that this one is a copy of.
reset: --adopt-machine: if cloud-init's datasource answers again at a later boot, the server gets new secrets once more.
`

// printReset reports what a reset has done. The secret is replaced by now, whatever fails
// from here on. An envelope that nothing delivers is printed, sealed as it is.
func printReset(e env, t *target.Target, user string, res *enroll.ResetResult) error {
	say := func(format string, args ...any) {
		fmt.Fprintf(e.err, "reset: %s: "+format+"\n", append([]any{user}, args...)...)
	}
	if res.Replaces {
		say("the old secret no longer works; new envelope %s (generation %d)", res.ID, res.Generation)
	} else {
		say("new envelope %s", res.ID)
	}
	if res.Login != nil {
		for _, p := range res.Login.Problems {
			say("the card is made, but the user cannot log in yet: %v", p)
		}
	}
	for _, name := range res.Spent {
		say("channel %q is single-use and has had an envelope", name)
	}
	for _, err := range res.Refused {
		say("%v", err)
	}
	if res.Remark != "" {
		say("%s", res.Remark)
	}
	var failed error
	switch {
	case len(res.Open) == 0:
		say("no channel can carry the new envelope")
	case !res.Ready:
		say("the new envelope is not in the outbox yet")
	case t.Booted():
		if failed = startDelivery(e, t); failed == nil {
			say("sending it by: %s; see: totp-agent status", strings.Join(res.Open, ", "))
			return nil
		}
	case t.Live():
		say("systemd is not running; to send the envelope, run: totp-agent deliver")
	}
	say("save the text below and open it with: totpctl open FILE")
	armored, err := seal.Armor(res.Sealed)
	if err != nil {
		return errors.Join(failed, err)
	}
	if _, err = e.out.Write(armored); err != nil {
		err = fmt.Errorf("printing the new envelope: %w; make another one with: totp-agent reset %s", err, user)
	}
	return errors.Join(failed, err)
}

// startDelivery lets the delivery unit send what is ready, in its sandbox.
func startDelivery(e env, t *target.Target) error {
	if _, err := t.Run(e, target.Systemctl, "start", "--no-block", target.DeliverService); err != nil {
		return errors.Join(errors.New("starting the delivery of the new envelope failed; run: totp-agent deliver"), err)
	}
	return nil
}

func versionVerb(*flag.FlagSet) func(env, []string) error {
	return func(e env, args []string) error {
		_, err := fmt.Fprintln(e.out, "totp-agent", version.String())
		return errors.Join(none(args), err)
	}
}
