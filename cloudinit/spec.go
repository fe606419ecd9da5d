// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"fmt"
	"path"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// A Spec is what a document says. Its fields but Vendor and the accounts of
// [User] are those of a policy, and mean what they mean there; a zero value says
// nothing.
type Spec struct {
	// Vendor makes the provider's layer, for vendor-data, in place of the
	// instance's, for user-data.
	Vendor bool

	Issuer           string
	Enroll           string
	Users            []User
	EscrowRecipients []string
	BackupCodes      int
	RateLimit        string
	Require          string
	Channels         []Channel
	Jitter           string
	Keep             string

	// Token is the enrollment token as a policy has it, see [Token]. A vendor's
	// layer has none.
	Token string
}

// A User is one who is enrolled, and an account if it has SSH keys.
type User struct {
	Name       string
	Recipients []string

	// SSHKeys are lines as authorized_keys has them. A user with any is an account
	// that cloud-init makes; one without is an account that is there already.
	SSHKeys []string

	Sudo  bool   // the account may become root without a password
	Shell string // of the account; empty: /bin/bash
}

// A Channel is a way for envelopes out of the instance, as in a policy.
type Channel struct {
	Type       string
	Port       string
	Device     string
	URL        string
	Method     string
	Headers    map[string]string
	Body       string
	Template   string
	Success    []int
	CAFile     string
	ClientCert string
	ClientKey  string
	HMACKey    string
	Envelopes  string
	User       string
	Recipients string
}

// String returns the type alone: URL and headers may hold secrets.
func (c Channel) String() string { return c.Type }

// GoString is as String.
func (c Channel) GoString() string { return c.Type }

// String tells what kind of value this is and nothing of what is in it.
func (s Spec) String() string { return fmt.Sprintf("cloudinit.Spec(%d users)", len(s.Users)) }

// GoString is as String.
func (s Spec) GoString() string { return s.String() }

// Token returns 16 random bytes as an enrollment token.
func Token(random [16]byte) string { return base64.RawURLEncoding.EncodeToString(random[:]) }

// Parse reads a layer's policy, as a file for people has it. file names it in
// errors, which are [Errors].
func Parse(file string, data []byte, vendor bool) (Spec, error) {
	layer := Spec{Vendor: vendor}.layer()
	p, err := policy.Parse(layer, file, data)
	if err != nil {
		return Spec{}, fromPolicy(err)
	}
	s := Spec{
		Vendor: vendor, Issuer: p.Issuer, Enroll: p.Enroll, EscrowRecipients: p.EscrowRecipients, BackupCodes: p.BackupCodes,
		RateLimit: p.RateLimit, Require: p.Require, Jitter: p.Jitter, Keep: p.Keep, Token: p.Token,
	}
	for _, u := range p.Users {
		s.Users = append(s.Users, User{Name: u.Name, Recipients: u.Recipients})
	}
	for _, c := range p.Channels {
		s.Channels = append(s.Channels, Channel(c))
	}
	return s, nil
}

// Layer returns the policy that the agent reads, in its canonical form. The
// errors are [Errors].
func (s Spec) Layer() ([]byte, error) {
	p := s.policy()
	errs := fromPolicies(p.Validate(s.layer()))
	errs = append(errs, s.accounts()...)
	if p.Issuer == "" && p.Enroll == "" && p.BackupCodes == 0 && p.RateLimit == "" && p.Require == "" && p.Jitter == "" && p.Keep == "" &&
		len(p.Users)+len(p.EscrowRecipients)+len(p.Channels) == 0 {
		errs = append(errs, &Error{Rule: ErrNothing, Fix: "name a user and a recipient"})
	}
	if len(errs) > 0 {
		return nil, errs
	}
	text, err := p.Marshal()
	if err != nil {
		return nil, fromPolicy(err)
	}
	return text, nil
}

func fromPolicies(errs policy.Errors) Errors {
	if len(errs) == 0 {
		return nil
	}
	return fromPolicy(errs)
}

func (s Spec) layer() policy.Layer {
	if s.Vendor {
		return policy.Vendor
	}
	return policy.Instance
}

// File returns the path of the layer on the instance.
func (s Spec) File() string { return "/var/lib/cloud/instance/" + s.layer().File() }

func (s Spec) policy() *policy.Policy {
	p := &policy.Policy{
		Version: policy.Version, Issuer: s.Issuer, Enroll: s.Enroll, EscrowRecipients: s.EscrowRecipients,
		BackupCodes: s.BackupCodes, RateLimit: s.RateLimit, Require: s.Require, Jitter: s.Jitter, Keep: s.Keep, Token: s.Token,
	}
	for _, u := range s.Users {
		p.Users = append(p.Users, policy.User{Name: u.Name, Recipients: u.Recipients})
	}
	for _, c := range s.Channels {
		p.Channels = append(p.Channels, policy.Channel(c))
	}
	return p
}

// accounts checks what a policy knows nothing of.
func (s Spec) accounts() Errors {
	var errs Errors
	login := make(map[string]bool)
	for i, u := range s.Users {
		at := fmt.Sprintf("users[%d]", i)
		for j, line := range u.SSHKeys {
			key, e := sshKey(line)
			if e != nil {
				e.Path = fmt.Sprintf("%s.ssh_keys[%d]", at, j)
				errs = append(errs, e)
				continue
			}
			login[string(key.Marshal())] = true
		}
		if u.Shell != "" && (!path.IsAbs(u.Shell) || path.Clean(u.Shell) != u.Shell || strings.ContainsAny(u.Shell, " \t:\n\"'\\")) {
			errs = append(errs, &Error{Path: at + ".shell", Value: u.Shell, Rule: ErrShell, Fix: "write it as in /bin/bash"})
		}
		if len(u.SSHKeys) == 0 || u.Name == "root" {
			errs = append(errs, u.madeElsewhere(at, "leave it out, or give the SSH key of an account that is to be made")...)
		}
	}
	for i, u := range s.Users {
		for j, r := range u.Recipients {
			if sameKey(login, r) {
				errs = append(errs, &Error{Path: fmt.Sprintf("users[%d].recipients[%d]", i, j), Rule: ErrSameKey, Fix: "use a key of its own: totpctl keygen makes one"})
			}
		}
	}
	for i, r := range s.EscrowRecipients {
		if sameKey(login, r) {
			errs = append(errs, &Error{Path: fmt.Sprintf("escrow_recipients[%d]", i), Rule: ErrSameKey, Fix: "use a key of its own: totpctl keygen makes one"})
		}
	}
	return errs
}

// madeElsewhere returns an error for each thing that only whoever makes an account
// can say of it.
func (u User) madeElsewhere(path, fix string) Errors {
	var errs Errors
	if u.Sudo {
		errs = append(errs, &Error{Path: path + ".sudo", Value: u.Name, Rule: ErrNoAccount, Fix: fix})
	}
	if u.Shell != "" {
		errs = append(errs, &Error{Path: path + ".shell", Value: u.Name, Rule: ErrNoAccount, Fix: fix})
	}
	return errs
}

func sameKey(login map[string]bool, recipient string) bool {
	if len(login) == 0 || !strings.HasPrefix(recipient, "ssh-") {
		return false
	}
	r, err := seal.ParseRecipient(recipient)
	if err != nil {
		return false
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(r.String()))
	return err == nil && login[string(key.Marshal())]
}

func abbreviate(s string) string {
	const head = 24
	if r := []rune(s); len(r) > head {
		return string(r[:head]) + "…"
	}
	return s
}
