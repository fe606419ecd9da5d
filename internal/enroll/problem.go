// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A Problem is one thing that keeps users out of this server, or soon will. Status lists
// all of them, and exits 1 if there is one.
type Problem struct {
	Code string `json:"code"`           // of its [Kind]
	User string `json:"user,omitempty"` // empty: the whole server
	What string `json:"what"`
	Fix  string `json:"fix"` // the command that ends it
}

// A Kind describes all problems of one code. Whatever status, console and SSH banner say
// about a problem comes from [Kinds], so none can be shown without its way out. Each has
// a section in docs/recovery.md and a row in the test that walks through them.
type Kind struct {
	Code string
	What string // a clause without the user's name
	Fix  string // the command that ends it, USER being the user's name

	// Notice marks a problem that can keep all users out. Then console and banner show
	// What and Fix to strangers too, so neither may name a user or a recipient.
	Notice bool
}

// The codes of problems. They are part of the output of status --json and do not change.
const (
	CodeIdentityUnknown = "identity-unknown"
	CodeDiskFull        = "disk-full"
	CodeDiskReadOnly    = "disk-read-only"
	CodeFileAttributes  = "file-attributes"
	CodePolicyInvalid   = "policy-invalid"
	CodeEnrollFailed    = "enroll-failed"
	CodeLayerRefused    = "layer-refused"
	CodeNoUser          = "no-user"
	CodeCannotLogIn     = "cannot-log-in"
	CodeNoRecipient     = "no-recipient"
	CodeLoginKey        = "login-key"
	CodeNoAccount       = "no-account"
	CodeRootDenied      = "root-denied"
	CodeUserName        = "user-name"
	CodeCardLost        = "card-lost"
	CodeStateMissing    = "state-missing"
	CodeStateDamaged    = "state-damaged"
	CodeStateMode       = "state-mode"
	CodeRateLimited     = "rate-limited"
	CodeDiskLow         = "disk-low"
	CodeCardUnconfirmed = "card-unconfirmed"
	CodeDeliveryFailed  = "delivery-failed"
	CodeCardTampered    = "card-tampered"
)

const (
	resetTo = "totp-agent reset --recipient age1... USER"

	// A user without a key could not log in, whatever the card says.
	addUser = "useradd -m -s /bin/bash USER; put the user's public SSH key into ~USER/.ssh/authorized_keys, owned by USER with mode 600; then run: "
)

// Kinds are all problems, the one first that explains the others: a notice names the
// first that the server has.
var Kinds = []Kind{
	{CodeIdentityUnknown, "the identity of this server is unknown in this boot (its cloud-init datasource did not answer)",
		"reboot; if this text is still here: totp-agent reset --adopt-machine --recipient age1... USER (this removes all existing secrets)", true},
	{CodeDiskFull, "the disk is full, so a login cannot record that its code is used",
		"df -h /var/lib; df -i /var/lib; delete files; then run: totp-agent enroll", true},
	{CodeDiskReadOnly, "the disk is read-only, so a login cannot record that its code is used",
		"mount -o remount,rw $(findmnt -nT /var/lib/google-authenticator -o TARGET); then run: totp-agent enroll", true},
	{CodeFileAttributes, "a file attribute keeps logins from recording that a code is used",
		"chattr -R -i -a /var/lib/google-authenticator /var/lib/totp-agent; then run: totp-agent enroll", true},
	{CodePolicyInvalid, "the policy of this image is invalid",
		"totp-agent enroll (it prints file and line; correct them and run it again)", true},
	{CodeEnrollFailed, "the enrollment failed in this boot",
		"totp-agent enroll (it tries again and prints the reason)", true},
	{CodeLayerRefused, "the policy in this server's user-data or vendor-data was refused", resetTo, true},
	{CodeCannotLogIn, "the account, the key or the settings of sshd refuse the login of an enrolled user",
		"totp-agent enroll (it prints the reason and the remedy for each user)", true},
	{CodeNoRecipient, "no recipient is known for the enrollment card", resetTo, true},
	{CodeLoginKey, "the recipient of the enrollment card is the user's own login key", resetTo, true},
	{CodeCardLost, "the enrollment card was lost before it was delivered", resetTo, true},
	{CodeNoAccount, "no user that the policy names has an account", addUser + "totp-agent enroll", true},
	{CodeRootDenied, "the policy denies root, and no other user can log in", addUser + resetTo, true},
	{CodeUserName, "the name of the user's account cannot be enrolled", "usermod -l NEWNAME USER; then run: totp-agent enroll", true},
	{CodeNoUser, "this server has no user account that could log in", addUser + resetTo, true},

	{CodeStateMissing, "the PAM state file is missing", "totp-agent reset USER", false},
	{CodeStateDamaged, "the PAM state file is damaged", "totp-agent reset USER", false},
	{CodeStateMode, "PAM refuses the mode or the owner of the PAM state file", "totp-agent enroll", false},
	{CodeRateLimited, "too many wrong codes: the user mistyped, or a client with the user's SSH key is guessing",
		"wait until the time shown; if the tries continue: journalctl -t sshd -t sshd-session -g 'publickey for USER ' shows address and key; find its line with ssh-keygen -lf AUTHORIZED_KEYS and remove it; then run: faillock --dir /run/faillock-sshd --user USER --reset", false},
	{CodeDiskLow, "the disk is almost full; once it is full, every login is refused", "df -h /var/lib; df -i /var/lib; delete files", false},
	{CodeCardUnconfirmed, "the enrollment card may not have arrived", "totp-agent reset USER", false},
	{CodeDeliveryFailed, "the last delivery of the enrollment card failed", "totp-agent deliver --again", false},
	{CodeCardTampered, "a different card was found where the enrollment card was delivered", "totp-agent reset USER", false},
}

// kindOf returns the kind with this code.
func kindOf(code string) Kind {
	i := slices.IndexFunc(Kinds, func(k Kind) bool { return k.Code == code })
	if i < 0 {
		return Kind{Code: code, What: code, Fix: "totp-agent status"}
	}
	return Kinds[i]
}

// problem is the kind on this server, for a user where it is one's. detail, if any, is
// the reason in words.
func (k Kind) problem(user, detail string) Problem {
	p := Problem{Code: k.Code, User: user, What: k.What, Fix: k.Fix}
	if user != "" {
		p.Fix = strings.ReplaceAll(k.Fix, "USER", user)
	}
	if detail != "" {
		p.What += " (" + detail + ")"
	}
	return p
}

// codeOf returns the code of what keeps a user, or all of them, from being enrolled.
func codeOf(err error) string {
	for _, c := range []struct {
		err  error
		code string
	}{
		{ErrUnknownID, CodeIdentityUnknown}, {ErrNoRecipient, CodeNoRecipient}, {ErrLoginKey, CodeLoginKey}, {errRecipients, CodeNoRecipient}, {ErrNoAccount, CodeNoAccount}, {ErrRootDenied, CodeRootDenied}, {policy.ErrUserName, CodeUserName},
		{errCardLost, CodeCardLost}, {errStateMode, CodeStateMode}, {target.ErrReadOnly, CodeDiskReadOnly}, {target.ErrAttr, CodeFileAttributes}, {errPolicy, CodePolicyInvalid},
	} {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	switch {
	case err == nil:
		return ""
	case target.IsDiskFault(err):
		return CodeDiskFull
	}
	return CodeEnrollFailed
}

// problems lists what is wrong, in the order of Kinds. disk is what keeps logins from
// writing, and space what is left.
func (st *Status) problems(space *target.Space, disk error) []Problem {
	var all []Problem
	add := func(code, user, detail string) { all = append(all, kindOf(code).problem(user, detail)) }
	if st.Unknown {
		add(CodeIdentityUnknown, "", "")
	}
	if disk != nil {
		add(codeOf(disk), "", disk.Error())
	} else if space != nil && space.Low() {
		add(CodeDiskLow, "", space.String())
	}
	if st.Error != "" && (disk == nil || st.ErrorCode != codeOf(disk)) {
		add(st.ErrorCode, "", st.Error)
	}
	for _, l := range st.RefusedLayers {
		add(CodeLayerRefused, "", l.Layer+" layer: "+l.Error)
	}
	if len(st.Users) == 0 && st.Error == "" {
		add(CodeNoUser, "", "")
	}
	for _, u := range st.Users {
		for _, code := range u.codes() {
			p := kindOf(code).problem(u.Name, u.Why)
			switch {
			case code == CodeRateLimited:
				p = kindOf(code).problem(u.Name, u.RateLimit.String())
			case code == CodeDeliveryFailed && u.noWay: // another try fails too
				p.What += " (no channel of the policy can carry it)"
				p.Fix = kindOf(CodeNoRecipient).problem(u.Name, "").Fix
			}
			all = append(all, p)
		}
		if u.Login != nil {
			for _, reason := range u.Login.Problems {
				p := kindOf(CodeCannotLogIn).problem(u.Name, reason.Text())
				p.Fix = or(reason.Fix, p.Fix)
				all = append(all, p)
			}
		}
	}
	order := func(p Problem) int { return slices.IndexFunc(Kinds, func(k Kind) bool { return k.Code == p.Code }) }
	slices.SortStableFunc(all, func(a, b Problem) int { return order(a) - order(b) })
	return all
}

// codes are the user's problems.
func (u UserStatus) codes() (codes []string) {
	if u.Code != "" && u.Code != CodeIdentityUnknown { // that is the server's
		codes = append(codes, u.Code)
	}
	if u.RateLimit != nil && u.RateLimit.Limited {
		codes = append(codes, CodeRateLimited)
	}
	if u.Card == CardUnconfirmed {
		codes = append(codes, CodeCardUnconfirmed)
	}
	arrived := u.Card == CardDelivered || u.Used // whatever channels are still pending
	for _, d := range u.Delivery {
		switch {
		case d.State == deliver.Tampered:
			codes = append(codes, CodeCardTampered)
		case d.State == deliver.Failed && u.Enrolled && !arrived:
			codes = append(codes, CodeDeliveryFailed)
		}
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}
