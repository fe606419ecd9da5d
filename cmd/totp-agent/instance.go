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
		// An update may have taken the line of the PAM file that asks for a code. It
		// has to be there before sshd; whatever keeps it out is no reason to leave
		// users without their enrollment.
		if err := e.repair(t); err != nil {
			fmt.Fprintf(e.err, "totp-agent: %v\n", err)
		}
		o := e.options()
		if c, err := openConsole(target.Console, consolePatience); err == nil {
			defer c.Close()
			o.Console = c
		}
		_, err = enroll.Run(e, t, o)
		return err
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
		st, err := enroll.ReadStatus(e, t)
		if err != nil {
			return err
		}
		if *asJSON {
			enc := json.NewEncoder(e.out)
			enc.SetIndent("", "  ")
			return enc.Encode(st)
		}
		return printStatus(e.out, st)
	}
}

func printStatus(w io.Writer, st *enroll.Status) error {
	fmt.Fprintf(w, "identity: %s\nlast run: %s\n", st.Identity, st.Time.Format(time.RFC3339))
	if st.Error != "" {
		fmt.Fprintf(w, "error: %s\n", st.Error)
	}
	for _, l := range st.RefusedLayers {
		fmt.Fprintf(w, "refused: %s layer: %s\n", l.Layer, l.Error)
	}
	for _, l := range st.Remarks {
		fmt.Fprintf(w, "passed over: %s layer: %s\n", l.Layer, l.Error)
	}
	if st.Clock != nil && st.Clock.State != target.ClockSynchronised {
		fmt.Fprintf(w, "clock: %s\n", st.Clock)
	}
	if st.Notice != "" {
		fmt.Fprintf(w, "notice: %s\n", strings.TrimSpace(st.Notice))
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
		if u.Why != "" {
			fmt.Fprintf(w, "%s: %s\n", u.Name, u.Why)
		}
		if u.Remark != "" {
			fmt.Fprintf(w, "%s: %s\n", u.Name, u.Remark)
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
	return func(e env, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%w: one user name is needed; usage: totp-agent reset [--recipient R] USER", errUsage)
		}
		t, err := e.open()
		if err != nil {
			return err
		}
		res, err := enroll.Reset(e, t, args[0], recipients, e.options())
		if err != nil {
			return err
		}
		fmt.Fprintf(e.err, "reset: %s: the old secret is dead; envelope %s (generation %d) goes out by the channels\n", args[0], res.ID, res.Generation)
		for _, name := range res.Spent {
			fmt.Fprintf(e.err, "reset: %s: channel %q takes one envelope in its life and has had it; the new one does not leave by it\n", args[0], name)
		}
		if res.Remark != "" {
			fmt.Fprintf(e.err, "reset: %s: %s\n", args[0], res.Remark)
		}
		if len(res.Ways) == 0 {
			fmt.Fprintf(e.err, "reset: %s: no channel can carry the new envelope; here it is\n", args[0])
		} else if t.Booted() {
			return startDelivery(e, t)
		} else if t.Live() {
			fmt.Fprintln(e.err, "reset: systemd does not run here; send it with: totp-agent deliver, or take it as it is")
		}
		// Nothing delivers it, on a disk that is mounted elsewhere say, so the sealed
		// envelope is given to whoever is at work here.
		armored, err := seal.Armor(res.Sealed)
		if err != nil {
			return err
		}
		_, err = e.out.Write(armored)
		return err
	}
}

// startDelivery lets the delivery unit send what is ready, in its sandbox.
func startDelivery(e env, t *target.Target) error {
	if _, err := t.Run(e, target.Systemctl, "start", "--no-block", target.DeliverService); err != nil {
		return errors.Join(errors.New("the new envelope is ready, but its delivery could not be started; run: totp-agent deliver"), err)
	}
	return nil
}

func versionVerb(*flag.FlagSet) func(env, []string) error {
	return func(e env, args []string) error {
		_, err := fmt.Fprintln(e.out, "totp-agent", version.String())
		return errors.Join(none(args), err)
	}
}
