// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// leftovers deals with state files and envelopes of those who are not to be
// enrolled any more. An account that is gone loses its file, so that a later
// account of that name does not inherit the secret; an account that the
// policy has stopped naming keeps it, since nobody is locked out silently.
func (r *run) leftovers(people []person, st *Status) error {
	known := map[string]bool{}
	for _, p := range people {
		known[p.name] = !errors.Is(p.err, ErrNoAccount)
	}
	accounts, err := r.t.Users()
	if err != nil {
		return err
	}
	exists := map[string]bool{}
	for _, a := range accounts {
		exists[a.Name] = true
	}
	live := map[string]bool{}
	err = r.eachState(func(name, file string) error {
		switch {
		case strings.Contains(name, "~"): // the module's temporary file of an interrupted login
			return nil
		case !exists[name]:
			fmt.Fprintf(r.Log, "enroll: removed the PAM state file %q, since that account is gone\n", name)
			return r.t.Remove(file)
		}
		state, err := readState(r.t, name)
		if err != nil {
			if !known[name] {
				st.Users = append(st.Users, UserStatus{Name: name, Why: err.Error()})
			}
			return nil
		}
		if !known[name] {
			if _, err := r.recover(state); err != nil {
				return err
			}
			st.Users = append(st.Users, UserStatus{
				Name: name, Enrolled: true, ID: state.Mark.ID, Generation: state.Mark.Generation, Used: state.Used,
				Why: "enrolled earlier; the policy does not name this user any more",
			})
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
	return r.withdraw(func(m deliver.Meta) bool { return !live[m.ID] })
}

// stateFile is where the PAM module looks for a user's state.
func stateFile(user string) string { return path.Join(target.PAMStateDir, user) }
