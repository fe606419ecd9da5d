// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// An accountID distinguishes an account from a later one of the same name. Its
// text is part of the mark in the PAM state file, so the file that makes a login
// possible also records for whom.
//
// The uid is not enough: useradd gives a new account the uid that userdel has
// freed. The home directory helps, because a new one has another inode and another
// time of birth. It counts only on the file system on which it was recorded: a
// volume that is mounted on /home later is not a new account. An account that
// keeps both uid and home directory is the same account: its keys are the same
// too.
type accountID struct {
	uid       int
	directory bool   // of a directory service, where not found may mean not reachable
	fs, home  string // "-" where there is no home directory
}

// identifyAccount returns the ID of an account as it is now.
func identifyAccount(t *target.Target, u target.User) accountID {
	id := accountID{uid: u.UID, directory: u.Directory, fs: absent, home: absent}
	if !strings.HasPrefix(u.Home, "/") || !t.IsDir(u.Home) {
		return id
	}
	if on, file, err := t.FileID(u.Home); err == nil {
		id.fs, id.home = on, file
	}
	return id
}

const (
	localAccount     = "local"
	directoryAccount = "nss"
)

func (a accountID) String() string {
	source := localAccount
	if a.directory {
		source = directoryAccount
	}
	return fmt.Sprintf("%d.%s.%s.%s", a.uid, source, a.fs, a.home)
}

// parseAccountID reads the text form. ok is false for an enrollment that an older
// agent made.
func parseAccountID(s string) (a accountID, ok bool) {
	f := strings.Split(s, ".")
	if len(f) != 4 {
		return a, false
	}
	uid, err := strconv.ParseUint(f[0], 10, 31)
	if err != nil || f[1] != localAccount && f[1] != directoryAccount {
		return a, false
	}
	return accountID{uid: int(uid), directory: f[1] == directoryAccount, fs: f[2], home: f[3]}, true
}

// replacedBy reports whether the account of now is another one.
func (a accountID) replacedBy(now accountID) bool {
	if a.uid != now.uid {
		return true
	}
	return a.fs != absent && a.fs == now.fs && a.home != now.home
}

// accountReplaced reports whether a state file was made for an earlier account of
// this name, which must not give its secret to the present one.
func accountReplaced(m otp.Mark, now accountID) bool {
	was, ok := parseAccountID(m.Account)
	return ok && was.replacedBy(now)
}

// recordAccount adds the account to the mark of an enrollment that has none yet,
// or whose home directory was not there or is on another file system now. A login
// in progress may take it out again; the next run adds it then. A login that has changed the
// file meanwhile, or is about to, wins: its code must not become valid again.
func (r *run) recordAccount(name string, s otp.State, now accountID) error {
	was, ok := parseAccountID(s.Mark.Account)
	if ok && (was == now || now.home == absent) {
		return nil
	}
	read, err := s.Format()
	if err != nil {
		return err
	}
	s.Mark.Account = now.String()
	b, err := s.Format()
	if err != nil {
		return err
	}
	file, err := r.t.Prepare(stateFile(name), b, 0o400)
	if err != nil {
		return err
	}
	if err := r.t.Sync(target.PAMStateDir); err != nil {
		return errors.Join(err, file.Discard())
	}
	if unchanged, err := r.unchanged(name, read); err != nil || !unchanged {
		return errors.Join(err, file.Discard())
	}
	if err := file.Commit(); err != nil {
		return err
	}
	return r.t.SyncDir(target.PAMStateDir)
}

// unchanged reports whether the state file is as it was read, and no login is about to
// change it.
func (r *run) unchanged(name string, read []byte) (bool, error) {
	inFlight := false
	err := r.eachState(func(n, _ string) error {
		inFlight = inFlight || n != name && userOf(n) == name
		return nil
	})
	if err != nil || inFlight {
		return false, err
	}
	s, err := readState(r.t, name)
	if err != nil {
		return false, err
	}
	again, err := s.Format()
	return bytes.Equal(again, read), err
}

// dropReplaced removes the state file of an account that is replaced by one that
// is not enrolled itself. Its envelope goes with the leftovers.
func (r *run) dropReplaced(name string) error {
	return r.removeState(name)
}
