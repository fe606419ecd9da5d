// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Validate returns every problem that p has as a policy of that layer, without
// regard to the layers below it. The errors have paths but no lines.
func (p *Policy) Validate(layer Layer) Errors {
	v := &validator{layer: layer}
	v.version(p.Version)
	v.issuer(p.Issuer)
	v.word("enroll", p.Enroll, EnrollAuto, EnrollListed)
	v.users(p.Users)
	v.recipients("escrow_recipients", p.EscrowRecipients)
	v.recipientsFrom(p)
	if p.BackupCodes < 0 || p.BackupCodes > MaxBackupCodes {
		v.fail("backup_codes", itoa(p.BackupCodes), ErrRange, "use 1 to "+itoa(MaxBackupCodes))
	}
	v.word("rate_limit", p.RateLimit, RateStandard, RateStrict)
	v.word("require", p.Require, RequireAny, RequireAll)
	v.channels(p.Channels)
	v.banner(p)
	v.room(p)
	v.duration("jitter", p.Jitter, 0, 10*time.Minute)
	v.duration("keep", p.Keep, day, 10*365*day)
	v.sshd(p.SSHD)
	v.word("time_sync", p.TimeSync, TimeSyncAuto, TimeSyncNone)
	v.word("firewall", p.Firewall, FirewallAuto, FirewallNone)
	v.word("packages", p.Packages, PackagesInstall, PackagesPresent)
	v.clean(p)
	v.token(p.Token)
	if layer != Image {
		v.errs = append(v.errs, notInLayer(layer, p)...)
	}
	return v.errs
}

const userNameFix = `use 1 to 32 of a-z, 0-9, "_", "." and "-", with a letter or "_" first and no ".."`

// ValidUserName accepts the names of accounts that can be enrolled: those that
// Debian's adduser makes by default and those of cloud images. Such a name is a
// safe file name too, which the PAM module makes of it without looking. The
// error wraps [ErrUserName].
func ValidUserName(name string) error {
	if !made(name, lower+digit+"_.-", 32) || !strings.Contains(lower+"_", name[:1]) || strings.Contains(name, "..") {
		return &Error{Path: "user", Value: show(name), Rule: ErrUserName, Fix: userNameFix}
	}
	return nil
}

type validator struct {
	layer Layer
	errs  Errors

	first seal.Recipient // of all that are named; their classes must be equal
	named bool
}

func (v *validator) fail(path, value string, rule error, fix string) {
	v.errs = append(v.errs, &Error{Path: path, Value: value, Rule: rule, Fix: fix})
}

func (v *validator) version(n int) {
	switch {
	case n == 0:
		v.fail("version", "", ErrRequired, `begin with the line "version: 1"`)
	case n < 0:
		v.fail("version", itoa(n), ErrVersion, "use version 1")
	case n > Version && v.layer == Image:
		v.fail("version", itoa(n), ErrVersion, "use version 1, or a newer program")
	}
}

func (v *validator) issuer(s string) {
	if s == "" {
		return
	}
	var e *otp.NameError
	if errors.As(otp.ValidIssuer(s), &e) {
		v.fail("issuer", show(s), e.Rule, e.Fix)
	}
}

func (v *validator) word(path, s string, words ...string) {
	if s == "" || slices.Contains(words, s) {
		return
	}
	v.fail(path, show(s), ErrWord, wordFix(s, words))
}

func wordFix(s string, words []string) string {
	if near := nearest(s, words); near != "" {
		return `did you mean "` + near + `"?`
	}
	last := len(words) - 1
	if last == 0 {
		return "use " + words[0]
	}
	return "use " + strings.Join(words[:last], ", ") + " or " + words[last]
}

func (v *validator) users(users []User) {
	seen := map[string]bool{}
	for i, u := range users {
		path := at("users", i)
		name := join(path, "name")
		switch {
		case u.Name == "":
			v.fail(name, "", ErrRequired, "write the account's name")
		case ValidUserName(u.Name) != nil:
			v.fail(name, show(u.Name), ErrUserName, userNameFix)
		case seen[u.Name]:
			v.fail(name, u.Name, ErrDuplicate, "write all recipients of a user under one name")
		}
		seen[u.Name] = true
		v.recipients(join(path, "recipients"), u.Recipients)
	}
}

func (v *validator) recipients(path string, list []string) {
	seen := map[string]bool{}
	for i, s := range list {
		path := at(path, i)
		r, err := parseRecipient(s)
		if err != nil {
			v.fail(path, show(s), err, recipientFix(err))
			continue
		}
		if seen[r.Hash()] {
			v.fail(path, show(s), ErrDuplicate, "leave out one of them")
			continue
		}
		seen[r.Hash()] = true
		if !v.named {
			v.first, v.named = r, true
		}
		if seal.CheckClasses([]seal.Recipient{v.first, r}) != nil {
			v.fail(path, show(s), seal.ErrMixedClasses, mixedFix)
		}
	}
}

// parseRecipient is seal.ParseRecipient with errors that repeat nothing of s.
func parseRecipient(s string) (seal.Recipient, error) {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return seal.Recipient{}, seal.ErrBadRecipient
	}
	r, err := seal.ParseRecipient(s)
	if err != nil {
		return r, known(err, seal.ErrIdentityAsRecipient, seal.ErrUnsupportedSSH, seal.ErrPlugin, seal.ErrShortRSA, seal.ErrKeyOptions, seal.ErrBadRecipient, seal.ErrUnknownRecipient)
	}
	return r, nil
}

// known returns the first of rules that err is, since an error of another
// package may repeat a value in its own way; the last of them stands for all
// others.
func known(err error, rules ...error) error {
	for _, rule := range rules {
		if errors.Is(err, rule) {
			return rule
		}
	}
	return rules[len(rules)-1]
}

const mixedFix = "use post-quantum recipients (age1pq1…, age1tagpq1…) for everybody, escrow included, or for nobody: a classic copy undoes the other's protection"

func recipientFix(err error) string {
	switch {
	case errors.Is(err, seal.ErrIdentityAsRecipient):
		return `replace it, since it has been in a file it should not be in, and name its public half, the line "age1…"`
	case errors.Is(err, seal.ErrUnsupportedSSH):
		return "age seals to ssh-ed25519 and ssh-rsa keys only; name one of those or an age1… recipient"
	case errors.Is(err, seal.ErrPlugin):
		return "plugins are not there on the instance; name an age1…, age1pq1…, age1tag1… or age1tagpq1… recipient"
	case errors.Is(err, seal.ErrShortRSA):
		return "use one of 2048 bits or more, or an age1… recipient"
	case errors.Is(err, seal.ErrKeyOptions):
		return "leave them out: a recipient begins with ssh-ed25519 or ssh-rsa"
	case errors.Is(err, seal.ErrBadRecipient):
		return "copy it again, as a whole and on one line"
	}
	return "use age1…, age1pq1…, age1tag1…, age1tagpq1…, ssh-ed25519 … or ssh-rsa …"
}

func (v *validator) recipientsFrom(p *Policy) {
	const path = "recipients_from"
	words := []string{string(Image), string(Vendor), string(Instance), FromAuthorizedKeys}
	if p.RecipientsFrom != nil && len(p.RecipientsFrom) == 0 {
		v.fail(path, "", ErrEmptyValue, "name a layer, or leave the key out: without recipients nobody can be enrolled")
	}
	before := len(v.errs)
	for i, s := range p.RecipientsFrom {
		path := at(path, i)
		switch {
		case !slices.Contains(words, s):
			v.fail(path, show(s), ErrWord, wordFix(s, words))
		case slices.Contains(p.RecipientsFrom[:i], s):
			v.fail(path, s, ErrDuplicate, "leave out one of them")
		case s == FromAuthorizedKeys && v.named && v.first.Class() == seal.PostQuantum:
			v.fail(path, s, seal.ErrMixedClasses, "SSH keys are classic; "+mixedFix)
		}
	}
	if v.layer != Image || len(p.RecipientsFrom) == 0 || len(v.errs) > before || slices.Contains(p.RecipientsFrom, string(Image)) {
		return
	}
	for i, u := range p.Users {
		if len(u.Recipients) > 0 {
			v.fail(join(at("users", i), "recipients"), "", ErrRecipientsFrom, `add "image" to recipients_from, or leave the recipients to the other layers`)
		}
	}
}

func (v *validator) token(s string) {
	switch {
	case s == "":
	case v.layer == Image:
		v.fail("token", "", ErrCredentialInImage, "put it into the instance's user-data")
	case v.layer == Instance:
		// Strict: one token has one spelling.
		if b, err := base64.RawURLEncoding.Strict().DecodeString(s); err != nil || len(b) != 16 || len(s) != 22 {
			v.fail("token", "", ErrToken, "use the 22 characters that the user-data was made with")
		}
	}
}
