// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package access

import (
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A Reason is why a login is refused, or why that cannot be judged. It is an
// error value; its text is a word that does not change, for programs.
type Reason string

// The account.
const (
	ShellMissing    Reason = "shell-missing"
	ShellNoLogin    Reason = "shell-nologin"
	NoLogin         Reason = "nologin-file"
	AccountExpired  Reason = "account-expired"
	PasswordExpired Reason = "password-expired"
	PasswordChange  Reason = "password-change"
)

// The settings of sshd.
const (
	SSHDRejects      Reason = "sshd-config"
	DenyUsers        Reason = "deny-users"
	AllowUsers       Reason = "allow-users"
	DenyGroups       Reason = "deny-groups"
	AllowGroups      Reason = "allow-groups"
	RootLogin        Reason = "permit-root-login"
	RefuseConnection Reason = "refuse-connection"
	Methods          Reason = "authentication-methods"
	KeysOff          Reason = "authorized-keys-none"
)

// The keys.
const (
	KeysMissing    Reason = "keys-missing"
	KeysUnreadable Reason = "keys-unreadable"
	KeysMode       Reason = "keys-mode"
	KeysEmpty      Reason = "keys-empty"
	KeyMalformed   Reason = "key-malformed"
	KeyForced      Reason = "key-forced-command"
	KeyCertificate Reason = "key-certificate"
	KeyTooShort    Reason = "key-too-short"
	KeyType        Reason = "key-type"
	KeyOptions     Reason = "key-options"
	KeyExpired     Reason = "key-expired"
)

// What is not judged here.
const (
	NotJudged        Reason = "not-judged"
	NotAsked         Reason = "not-asked"
	PasswordUndated  Reason = "password-undated"
	HostRule         Reason = "host-rule"
	ForceCommand     Reason = "force-command"
	Chroot           Reason = "chroot-directory"
	KeysCommand      Reason = "authorized-keys-command"
	UserCA           Reason = "user-ca"
	KeyFrom          Reason = "key-from"
	DirectoryAccount Reason = "directory-account"
)

// A description is what people read about a reason. In fix, USER, HOME and DETAIL
// are replaced.
type description struct {
	text, fix string
	unknown   bool
}

// thenReload ends the remedy for a setting of sshd. The second command removes the
// notice.
const thenReload = "; run: systemctl reload ssh; totp-agent enroll"

var reasons = map[Reason]description{
	ShellMissing:    {text: "the login shell does not exist or is not executable", fix: "usermod -s /bin/bash USER"},
	ShellNoLogin:    {text: "the login shell ends every session", fix: "usermod -s /bin/bash USER"},
	NoLogin:         {text: "the file refuses all users except root", fix: "rm DETAIL"},
	AccountExpired:  {text: "the account has expired", fix: "chage -E -1 USER"},
	PasswordExpired: {text: "the password has expired, so PAM asks for a new one", fix: "chage -M -1 USER"},
	PasswordChange:  {text: "the password must be changed at the next login, which needs the old one", fix: "chage -d \"$(date +%F)\" USER"},

	SSHDRejects:      {text: "sshd rejects its configuration", fix: "sshd -t; correct the line that it prints; run: systemctl restart ssh; totp-agent enroll"},
	DenyUsers:        {text: "DenyUsers of sshd_config matches the user", fix: "grep -rn DenyUsers /etc/ssh; remove USER from that line" + thenReload},
	AllowUsers:       {text: "AllowUsers of sshd_config does not match the user", fix: "grep -rn AllowUsers /etc/ssh; add USER to that line" + thenReload},
	DenyGroups:       {text: "DenyGroups of sshd_config matches a group of the user", fix: "grep -rn DenyGroups /etc/ssh; remove the group of USER from that line" + thenReload},
	AllowGroups:      {text: "AllowGroups of sshd_config matches no group of the user", fix: "grep -rn AllowGroups /etc/ssh; add a group of USER to that line" + thenReload},
	RootLogin:        {text: "PermitRootLogin must be yes for root's code", fix: "totp-agent check"},
	RefuseConnection: {text: "RefuseConnection of sshd_config applies to the user", fix: "grep -rn RefuseConnection /etc/ssh; remove that line, or exclude USER from its Match block" + thenReload},
	Methods:          {text: "sshd does not ask this user for key and code", fix: "totp-agent check"},
	KeysOff:          {text: "AuthorizedKeysFile is none, and nothing else provides keys", fix: "grep -rn AuthorizedKeysFile /etc/ssh; remove that line" + thenReload},

	KeysMissing:    {text: "there is no file of login keys", fix: "add a public key to DETAIL"},
	KeysUnreadable: {text: "sshd cannot read the file of login keys as the user", fix: "chown USER: DETAIL"},
	KeysMode:       {text: "StrictModes refuses a path that other users can write", fix: "chown USER: DETAIL; chmod go-w DETAIL"},
	KeysEmpty:      {text: "the file of login keys lists no key", fix: "add a public key to DETAIL"},
	KeyMalformed:   {text: "a line of the file is not a valid public key", fix: "ssh-keygen -lf DETAIL; correct or remove the lines of that file that it does not list"},
	KeyForced:      {text: "the key runs only its forced command (command=), and no session", fix: "add a key without command= to DETAIL"},
	KeyCertificate: {text: "the file lists a certificate where sshd expects a key", fix: "add the public key (.pub, not -cert.pub) to DETAIL"},
	KeyTooShort:    {text: "the RSA key is shorter than sshd accepts", fix: "ssh-keygen -t ed25519, then add the new public key to DETAIL"},
	KeyType:        {text: "sshd does not accept keys of this type", fix: "ssh-keygen -t ed25519, then add the new public key to DETAIL"},
	KeyOptions:     {text: "sshd does not accept the options of the key", fix: "correct the options in DETAIL, see sshd(8)"},
	KeyExpired:     {text: "the expiry-time of the key has passed", fix: "change or remove expiry-time in DETAIL"},

	NotJudged:        {text: "not judged", unknown: true},
	NotAsked:         {text: "sshd was not asked about this user, since there are too many", unknown: true},
	PasswordUndated:  {text: "the password has a maximum age and no date of its last change, which PAM before 1.7 takes for expired", unknown: true},
	HostRule:         {text: "the rule depends on the address of the client", unknown: true},
	ForceCommand:     {text: "ForceCommand runs instead of a session", unknown: true},
	Chroot:           {text: "ChrootDirectory applies to the user", unknown: true},
	KeysCommand:      {text: "AuthorizedKeysCommand may provide keys", unknown: true},
	UserCA:           {text: "a user certificate may be accepted", unknown: true},
	KeyFrom:          {text: "the key is accepted only from the addresses of its from= option", unknown: true},
	DirectoryAccount: {text: "the expiry dates of an account from a directory service are not known", unknown: true},
}

// Error returns the word.
func (r Reason) Error() string { return string(r) }

// fix returns the remedy for one user.
func (r Reason) fix(u target.User, detail string) string {
	return strings.NewReplacer("USER", printable(u.Name), "HOME", printable(u.Home), "DETAIL", detail).Replace(reasons[r].fix)
}

// A Problem is a reason, where it was found, and what ends it.
type Problem struct {
	Reason Reason `json:"reason"`
	Detail string `json:"detail,omitempty"` // the file, or the value of sshd
	Fix    string `json:"fix,omitempty"`    // a command, or one step
}

// Text is the reason without the remedy.
func (p Problem) Text() string {
	if p.Detail == "" {
		return reasons[p.Reason].text
	}
	return p.Detail + ": " + reasons[p.Reason].text
}

func (p Problem) Error() string {
	s := p.Text()
	if p.Fix != "" {
		s += "; remedy: " + p.Fix
	}
	return s
}

// Unwrap returns the reason, for errors.Is.
func (p Problem) Unwrap() error { return p.Reason }
