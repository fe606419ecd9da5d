// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// An Error is one problem of one field, of a [Spec] or of a document.
type Error struct {
	File         string // the document's name; empty if it has none
	Path         string // the field, as in users[0].recipients[1]; empty for the document itself
	Line, Column int    // from 1; zero if unknown
	Value        string // what was found, as it may be shown; empty if nothing may
	Rule         error  // what was broken
	Fix          string // what to do about it
}

// Error returns the problem in one line:
//
//	web.yaml:4:11: users[0].name: "a/b": is not a user name; use 1 to 32 of …
func (e *Error) Error() string {
	var b strings.Builder
	place := e.File
	if place == "" && e.Line > 0 {
		place = "line "
	}
	b.WriteString(place)
	for i, n := range []int{e.Line, e.Column} {
		if n == 0 {
			break
		}
		if e.File != "" || i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(strconv.Itoa(n))
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	if e.Value != "" {
		fmt.Fprintf(&b, "%q: ", e.Value)
	}
	b.WriteString(e.Rule.Error())
	if e.Fix != "" {
		b.WriteString("; " + e.Fix)
	}
	return b.String()
}

// Unwrap returns the rule.
func (e *Error) Unwrap() error { return e.Rule }

// Errors are all problems of a [Spec] or of a document.
type Errors []*Error

// Error returns the problems, one a line.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the problems.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// named returns the problems as those of a file.
func (es Errors) named(file string) Errors {
	for _, e := range es {
		if e.File == "" {
			e.File = file
		}
	}
	return es
}

// sort orders the problems by line and column.
func (es Errors) sort() {
	slices.SortStableFunc(es, func(a, b *Error) int {
		return cmp.Or(a.Line-b.Line, a.Column-b.Column)
	})
}

// What a [Spec] can have wrong besides the rules of a policy.
var (
	ErrNotSSHKey    = errors.New("is not a line of an SSH public key")
	ErrPrivateKey   = errors.New("is a private key")
	ErrSameKey      = errors.New("is the login key as well, so that one theft would give both factors")
	ErrShell        = errors.New("is not the absolute path of a shell")
	ErrNoAccount    = errors.New("has no use for an account that is there already")
	ErrNothing      = errors.New("says nothing")
	ErrTwoTokens    = errors.New("has a token already")
	ErrNoRecipients = errors.New("nobody is known who could read the card")
	ErrExpired      = errors.New("must be later than now")

	ErrKeyKind         = errors.New("is a kind of key that sshd does not accept")
	ErrCertificate     = errors.New("is a certificate, which sshd does not accept as a login key")
	ErrWeakKey         = errors.New("is an RSA key of less than 2048 bits, which sshd refuses")
	ErrKeyOption       = errors.New("is an unknown option, for which sshd ignores the key")
	ErrImageRefusesKey = errors.New("is a kind of key that sshd of the image refuses (sshd.algorithms: strict)")
	ErrRootDenied      = errors.New("cannot log in: the image refuses root over SSH (sshd.root_login: deny)")
)

// Why a user who is enrolled cannot log in, or may not be able to.
var (
	ErrDisableRoot     = errors.New("locks root out: cloud-init replaces root's keys by ones that only print a message")
	ErrRedirected      = errors.New("locks the user out: cloud-init gives the user keys that only print a message")
	ErrNoUsableKey     = errors.New("has no key that sshd accepts")
	ErrForcedCommand   = errors.New("has keys with a forced command only, so that the user gets no shell")
	ErrNotListed       = errors.New("is enrolled but not in this list, so cloud-init does not create the account")
	ErrNoKey           = errors.New("is enrolled but gets no SSH key here; without one the user cannot log in")
	ErrLateKeys        = errors.New("fetches the keys from the network after SSH has started, and a failed fetch leaves the user without a key")
	ErrPanelKeys       = errors.New("keeps the provider's keys off the server, and an enrolled user has no other key here")
	ErrNoShell         = errors.New("ends every session of an enrolled user")
	ErrAccountExpires  = errors.New("ends the account of an enrolled user: from that day on PAM denies the login even with the right code")
	ErrPasswordExpires = errors.New("has a password that expires at once: after the code PAM asks for the current password, and denies a user who does not know it")
	ErrNotCreated      = errors.New("does not go with SSH keys: cloud-init 22.4 and later makes neither this user nor the users after it")
)

// Why no card may leave a host.
var (
	ErrNoWayOut     = errors.New("no channel brings the card out")
	ErrUnknownWay   = errors.New("no channel is known to bring the card out")
	ErrUnknownImage = errors.New("may be unable to log in: the image's channels are unknown")
)

// What a document can have wrong.
var (
	ErrTooLarge  = errors.New("is larger than 1 MiB")
	ErrEmpty     = errors.New("is empty")
	ErrNotUTF8   = errors.New("is not UTF-8, and cloud-init would ignore it")
	ErrBOM       = errors.New("begins with a byte order mark, and cloud-init would ignore it")
	ErrHeader    = errors.New("has no first line that cloud-init knows, and would be ignored")
	ErrBase64    = errors.New("is a document in base64")
	ErrTemplate  = errors.New("is a line of a template that is not rendered")
	ErrBlank     = errors.New("is not a space, although it looks like one or like nothing")
	ErrGzip      = errors.New("is a damaged gzip file")
	ErrSyntax    = errors.New("is not YAML")
	ErrTab       = errors.New("has a tab where cloud-init wants spaces")
	ErrUnread    = errors.New("is nothing that cloud-init reads, and it would ignore the whole document")
	ErrTag       = errors.New("is a tag that cloud-init does not know")
	ErrDocuments = errors.New("holds more than one YAML document")
	ErrType      = errors.New("has a type that cannot be added to")
	ErrTwice     = errors.New("key is given twice, and cloud-init would take the last")
)

// Where a document and a [Spec] want different things.
var (
	ErrTwoCarriers  = errors.New("is the layer in another way, and the agent refuses one that comes in two")
	ErrSameFile     = errors.New("is written by the document already")
	ErrOtherKeys    = errors.New("is a user of the document with other keys")
	ErrPasswordAuth = errors.New("lets passwords in")
	ErrModules      = errors.New("leaves out a module that is needed")
	ErrMergeHow     = errors.New("would let a customer's lists replace this layer")
)

// What a document does to the login of the image, and to the policy.
var (
	ErrLoginFile   = errors.New("is a file that the image's login depends on")
	ErrSSHUnit     = errors.New("changes how systemd starts sshd, so that sshd may not ask for the code")
	ErrNoEffect    = errors.New("has settings without effect on the login, which the image's own settings decide")
	ErrDenies      = errors.New("may deny the login of an enrolled user")
	ErrHidden      = errors.New("hides the policy or files of the login, which cloud-init or the image has written there before")
	ErrOtherServer = errors.New("logs users in without asking for the code")
	ErrExempt      = errors.New("lets an enrolled user log in with the key alone: the image exempts the user from the code")
	ErrInstaller   = errors.New("is for Ubuntu's installer, and what is merged beside it would stay in the installer")
)

// ErrOverLimit means that a document is larger than a provider takes.
var ErrOverLimit = errors.New("is larger than the provider takes")

// fromPolicy makes this package's errors of those of package policy.
func fromPolicy(err error) Errors {
	var errs policy.Errors
	if !errors.As(err, &errs) {
		var one *policy.Error
		if !errors.As(err, &one) {
			return Errors{{Rule: err}}
		}
		errs = policy.Errors{one}
	}
	out := make(Errors, len(errs))
	for i, e := range errs {
		out[i] = (*Error)(e)
	}
	return out
}
