// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/access"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A LoginCheck is whether an enrolled user can log in with key and code.
type LoginCheck struct {
	Verdict  string           `json:"verdict"`            // one of the words below
	Problems []access.Problem `json:"problems,omitempty"` // each one alone refuses every login
	Unknown  []access.Problem `json:"unknown,omitempty"`  // what could not be judged
}

// The verdicts of a LoginCheck.
const (
	LoginPossible   = "can"
	LoginImpossible = "cannot"
	LoginUnknown    = "unknown" // no problem was found, and not everything could be judged
)

// loginLimit is how long all checks of a run take at most: at boot sshd waits for
// the agent, and a directory service may be slow.
const loginLimit = 10 * time.Second

// checkLogins finds out which of the enrolled users cannot log in, and why. The
// commit of their enrollments does not wait for it.
func (st *Status) checkLogins(ctx context.Context, t *target.Target, accounts []target.User) {
	if !t.Exists(target.SSHD) || !slices.ContainsFunc(st.Users, func(u UserStatus) bool { return u.Enrolled }) {
		return
	}
	byName := map[string]target.User{}
	for _, a := range accounts {
		byName[a.Name] = a
	}
	c := access.New(t, access.Options{})
	for i := range st.Users {
		u := &st.Users[i]
		u.Login = nil
		account, ok := byName[u.Name]
		if !u.Enrolled || !ok {
			continue
		}
		v := c.Check(ctx, account)
		u.Login = &LoginCheck{Verdict: LoginPossible, Problems: v.Problems, Unknown: v.Unknown}
		switch {
		case !v.Can():
			u.Login.Verdict = LoginImpossible
		case len(v.Unknown) > 0:
			u.Login.Verdict = LoginUnknown
		}
	}
}

// refreshLogins judges the logins as they are now.
func (st *Status) refreshLogins(ctx context.Context, t *target.Target) error {
	accounts, err := t.Users()
	if err != nil {
		return err
	}
	for _, u := range st.Users {
		if !u.Enrolled || slices.ContainsFunc(accounts, func(a target.User) bool { return a.Name == u.Name }) {
			continue
		}
		if a, err := t.LookupUser(ctx, u.Name); err == nil {
			accounts = append(accounts, a)
		}
	}
	st.checkLogins(ctx, t, accounts)
	return nil
}

func (st *Status) logLogins(w io.Writer) {
	for _, u := range st.Users {
		if u.Login == nil {
			continue
		}
		for _, p := range u.Login.Problems {
			fmt.Fprintf(w, "enroll: %s: cannot log in: %v\n", u.Name, p)
		}
	}
}

// lockedOut reports whether users are enrolled and none of them can log in. A
// configuration that sshd rejects does not count: then there is no banner either,
// and the failed unit says it on the console.
func (st *Status) lockedOut() bool {
	enrolled := false
	for _, u := range st.Users {
		if !u.Enrolled {
			continue
		}
		enrolled = true
		if u.Login == nil || !slices.ContainsFunc(u.Login.Problems, func(p access.Problem) bool { return p.Reason != access.SSHDRejects }) {
			return false
		}
	}
	return enrolled
}
