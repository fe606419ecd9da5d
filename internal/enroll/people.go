// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// A person is somebody who is to be enrolled, with those who may read the
// card, or the reason why that cannot be.
type person struct {
	name    string
	account *accountID       // nil where there is none
	readers []seal.Recipient // own first, then escrow
	escrow  []seal.Recipient
	err     error
}

// errRecipients marks recipients that cannot be used together.
var errRecipients = errors.New("recipients")

// errDirectory marks an account that a directory service may have and did not
// tell about.
var errDirectory = errors.New("the directory service did not answer; run totp-agent enroll when it does")

// directoryLimit is how long the directory services have for all accounts: sshd
// waits for the agent at boot.
const directoryLimit = 6 * time.Second

// directoryAccounts looks up the users of the policy whom /etc/passwd does not
// have, as PAM and sshd will: they may be users of LDAP or sssd.
func (r *run) directoryAccounts(ctx context.Context, local []target.User) []target.User {
	has := map[string]bool{}
	for _, a := range local {
		has[a.Name] = true
	}
	ctx, cancel := context.WithTimeout(ctx, directoryLimit)
	defer cancel()
	r.unanswered = map[string]error{}
	var found []target.User
	for _, u := range r.policy.Users {
		if has[u.Name] || !r.t.HasCommand(target.GetentCmd) {
			continue
		}
		switch a, err := r.t.LookupUser(ctx, u.Name); {
		case err == nil:
			found = append(found, a)
		case !errors.Is(err, target.ErrNotInDirectory):
			r.unanswered[u.Name] = err
		}
	}
	return found
}

// people returns who is to be enrolled, in the order of /etc/passwd, then
// those whom the policy names and who have no account.
func (r *run) people(accounts []target.User) ([]person, error) {
	var people []person
	named := map[string]bool{}
	var groups target.Groups
	if len(r.policy.SSHD.ExemptGroups) > 0 {
		var err error
		if groups, err = r.t.Groups(); target.IsFault(err) {
			return nil, err
		} else if err != nil {
			fmt.Fprintf(r.Log, "enroll: %v\n", err)
		}
	}
	for _, a := range accounts {
		// Most accounts are the system's: nobody looks for their keys.
		if !a.CanLogin() && !r.policy.Listed(a.Name) {
			continue
		}
		keys, err := r.t.LoginKeys(a)
		unread := keysUnread(err)
		if err != nil && unread == nil {
			fmt.Fprintf(r.Log, "enroll: %s: %v\n", a.Name, err)
		}
		exempt := r.policy.SSHD.Exempts(a.Name, groups.Of(a), netip.Addr{})
		r.exempt = r.exempt || exempt && a.CanLogin() && len(keys) > 0
		if unread != nil {
			keys = []target.LoginKey{{}} // there may be one
		}
		if !eligible(r.policy, a, keys, exempt) {
			continue
		}
		named[a.Name] = true
		id := identifyAccount(r.t, a)
		account := &id
		if a.UID == 0 && r.policy.SSHD.RootLogin == policy.RootDeny {
			people = append(people, person{name: a.Name, account: account, err: ErrRootDenied})
			continue
		}
		if err := policy.ValidUserName(a.Name); err != nil {
			// Such a name could lead the PAM module to another user's file.
			people = append(people, person{name: a.Name, account: account, err: fmt.Errorf("%w, or rename the account by usermod -l", err)})
			continue
		}
		p := person{name: a.Name, err: unread}
		if unread == nil {
			p = newPerson(r.policy, a.Name, keys, nil)
		}
		p.account = account
		people = append(people, p)
	}
	for _, u := range r.policy.Users {
		if !named[u.Name] {
			err := ErrNoAccount
			if r.unanswered[u.Name] != nil {
				err = fmt.Errorf("%w: %w", errDirectory, r.unanswered[u.Name])
			}
			people = append(people, person{name: u.Name, err: err})
		}
	}
	return people, nil
}

// keysUnread returns err, the error of reading login keys, if it is a fault of the machine.
// A card must not be sealed then: its recipient could be the user's own login key. A
// permission that even root lacks, as on a network file system, is no fault.
func keysUnread(err error) error {
	if !target.IsFault(err) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return fmt.Errorf("login keys: %w; run totp-agent enroll when they can be read", err)
}

// eligible is the rule of the policy's enroll key (auto or listed).
func eligible(e *policy.Effective, a target.User, keys []target.LoginKey, exempt bool) bool {
	if e.Listed(a.Name) {
		return true
	}
	if e.Enroll == policy.EnrollListed || !a.CanLogin() || exempt {
		return false
	}
	if a.UID == 0 {
		switch e.SSHD.RootLogin {
		case policy.RootTOTP:
			return true
		case policy.RootDeny:
			return false
		}
		// Root logs in where somebody gave it login keys; the line that
		// cloud-init writes to send people elsewhere is none.
		return slices.ContainsFunc(keys, func(k target.LoginKey) bool { return !k.Forced })
	}
	return a.UID >= 1000 && a.UID != nobodyUID
}

const nobodyUID = 65534

// maxOwnKeys is how many login keys of a user a card is sealed to: as many
// recipients as a card can name.
const maxOwnKeys = 64

// newPerson finds the recipients of a user: those given, else those that the
// policy names, or, where it names none and allows it, the user's own login
// keys.
func newPerson(e *policy.Effective, name string, keys []target.LoginKey, given []seal.Recipient) person {
	own, escrow := e.RecipientsOf(name)
	if len(given) > 0 {
		own = given
	}
	p := person{name: name, escrow: escrow}
	login := map[string]bool{}
	for _, k := range keys {
		login[k.Type+" "+k.Blob] = true
	}
	for _, o := range append(slices.Clone(own), escrow...) {
		if o.IsSSH() && login[keyOf(o)] {
			p.err = fmt.Errorf("%s: %w", o.Short(), ErrLoginKey)
			return p
		}
	}
	if len(own) == 0 && e.AllowsAuthorizedKeys() {
		for _, k := range keys {
			if k.Forced || len(own)+len(escrow) >= maxOwnKeys {
				continue
			}
			if rec, err := seal.ParseRecipient(k.Type + " " + k.Blob); err == nil {
				own = append(own, rec)
			}
		}
	}
	if len(own) == 0 {
		p.err = ErrNoRecipient
		return p
	}
	p.readers = append(slices.Clone(own), escrow...)
	if err := seal.CheckClasses(p.readers); err != nil {
		p.err = fmt.Errorf("%w: %w", errRecipients, err)
	}
	return p
}

// misfit says which channel has too little room for a person's card, or nothing.
func (r *run) misfit(p person) string {
	if p.err != nil {
		return ""
	}
	if err := r.policy.Misfit(p.name, p.readers); err != nil {
		return err.Error()
	}
	return ""
}

// keyOf returns type and blob of an SSH recipient, without its comment.
func keyOf(r seal.Recipient) string {
	f := strings.Fields(r.String())
	return strings.Join(f[:min(2, len(f))], " ")
}
