// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// leftovers deals with state files and envelopes of those who are not to be
// enrolled any more. An account that is gone loses its file, so that a later
// account of that name does not inherit the secret; an account that the
// policy has stopped naming keeps it, since nobody is locked out silently.
func (r *run) leftovers(accounts []target.User, people []person, st *Status) error {
	known := map[string]bool{}
	for _, p := range people {
		known[p.name] = !errors.Is(p.err, ErrNoAccount)
	}
	exists := map[string]target.User{}
	for _, a := range accounts {
		exists[a.Name] = a
	}
	live := map[string]bool{}
	err := r.eachState(func(name, file string) error {
		switch {
		case strings.HasSuffix(name, heldSuffix):
			return nil
		case strings.Contains(name, "~"):
			return r.removeOld(file)
		}
		if id := r.enrolled[name]; id != "" {
			live[id] = true
			return nil
		}
		state, err := readState(r.t, name)
		if target.IsFault(err) {
			return err
		}
		if err == nil && state.Mark.ID != "" {
			gone, err := r.accountGone(exists, name, state.Mark)
			if err != nil {
				return err
			}
			if gone != "" {
				fmt.Fprintf(r.Log, "enroll: removed the PAM state file %q, since that account is %s\n", name, gone)
				return r.removeState(name)
			}
		}
		if err != nil {
			if !known[name] {
				st.Users = append(st.Users, UserStatus{Name: name, Why: err.Error(), Code: CodeStateDamaged})
			}
			return nil
		}
		if !known[name] {
			delivered, err := r.recover(state)
			if err != nil {
				return err
			}
			u := UserStatus{
				Name: name, Enrolled: delivered, ID: state.Mark.ID, Generation: state.Mark.Generation, Used: state.Used,
				Why: "enrolled earlier; the policy does not name this user any more",
			}
			if !delivered {
				u.Why, u.Code = errCardLost.Error(), CodeCardLost
			}
			// A user whom /etc/passwd has lost is listed already, as one without an account.
			if !slices.ContainsFunc(st.Users, func(u UserStatus) bool { return u.Name == name }) {
				st.Users = append(st.Users, u)
			}
		}
		if state.Mark.ID != "" {
			live[state.Mark.ID] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	// An envelope that no state file stands for was never committed, or has
	// been superseded.
	staged, ready, err := r.outbox.IDs()
	if err != nil {
		return err
	}
	maps.Copy(ready, staged)
	maps.DeleteFunc(ready, func(id string, _ bool) bool { return live[id] })
	if len(ready) == 0 {
		return nil
	}
	return r.withdraw(func(m deliver.Meta) bool { return !live[m.ID] })
}

// accountGone returns what has become of the account of a state file, or "" where
// it is there. A directory service that cannot be reached often answers that it
// knows no such user, so the state of its users stays. So does that of an account that
// /etc/shadow still has: then /etc/passwd has lost lines.
func (r *run) accountGone(exists map[string]target.User, name string, m otp.Mark) (string, error) {
	a, is := exists[name]
	was, recorded := parseAccountID(m.Account)
	switch {
	case !is && recorded && was.directory:
		return "", nil
	case !is:
		lost, err := r.t.InShadow(name)
		if err != nil || !lost {
			return "gone", err
		}
		fmt.Fprintf(r.Log, "enroll: %s: %s has no such account and %s has; the PAM state file is kept; remove the account by userdel, or restore %s from %s\n",
			name, target.Passwd, target.Shadow, target.Passwd, target.PasswdBackup)
	case recorded && was.replacedBy(identifyAccount(r.t, a)):
		return "another one now", nil
	}
	return "", nil
}

// errCardLost is said of a user whose secret is live and whose card is gone.
var errCardLost = errors.New("the card of this enrollment was never delivered and is gone; make a new one with: totp-agent reset")

// sweep removes what a run that was killed, or a power cut, has left: files that were not
// renamed yet, and envelopes that were being stored or removed. Deliveries sweep what they
// write themselves.
func (r *run) sweep() error {
	errs := []error{r.outbox.Sweep()}
	for _, dir := range []string{target.StateDir, target.CloudInstance, target.Etc} {
		errs = append(errs, r.t.SweepOlder(dir, time.Minute)) // other commands write there too
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintf(r.Log, "enroll: sweep: %v\n", err) // litter keeps no user from an enrollment
	}
	return r.t.Sweep(target.PAMStateDir)
}

// removeOld removes the PAM module's temporary file of a login that died. That
// of a login in progress is no older than a moment.
func (r *run) removeOld(file string) error {
	info, err := r.t.Lstat(file)
	if err != nil || r.Now().Sub(info.ModTime()) < time.Minute {
		return nil
	}
	return remove(r.t, file)
}

// stateFile is where the PAM module looks for a user's state.
func stateFile(user string) string { return path.Join(target.PAMStateDir, user) }
