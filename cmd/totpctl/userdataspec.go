// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// specFlags are the options that say what is in a document.
type specFlags struct {
	policy      string
	users       []cloudinit.User
	keyFiles    [][]string // of each user: files, or keys
	rFiles      [][]string // of each user
	escrow      []string
	channels    []string
	issuer      string
	backupCodes int

	perUser []string // options that came for a user, for errors
}

func (s *specFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.policy, "policy", "", "take users, recipients and channels from the policy in `FILE`")
	f.Var(&userFlag{s: s, name: "user", set: s.user}, "user", "enroll the user `NAME` (can be repeated)")
	f.Var(s.ofUser("recipient", func(u int, v string) { s.users[u].Recipients = append(s.users[u].Recipients, v) }), "recipient", "seal this user's card to the age recipient `R` (can be repeated)")
	f.VarP(s.ofUser("recipients-file", func(u int, v string) { s.rFiles[u] = append(s.rFiles[u], v) }), "recipients-file", "R", "likewise, to those in `FILE` (can be repeated)")
	f.Var(s.ofUser("ssh-key", func(u int, v string) { s.keyFiles[u] = append(s.keyFiles[u], v) }), "ssh-key", "make the account, with the public keys in `FILE`, or the key itself (can be repeated)")
	f.Var(s.ofUser("shell", func(u int, v string) { s.users[u].Shell = v }), "shell", "the account's login shell is `PATH`")
	sudo := s.ofUser("sudo", func(u int, v string) { s.users[u].Sudo = v == "true" })
	sudo.bool = true
	f.Var(sudo, "sudo", "the account may become root")
	f.Lookup("sudo").NoOptDefVal = "true"
	f.StringArrayVar(&s.escrow, "escrow", nil, "seal every card to the age recipient `R` as well (can be repeated)")
	f.StringArrayVar(&s.channels, "channel", nil, "add a channel: `TYPE`, virtio,port=NAME or console,device=PATH (can be repeated)")
	f.StringVar(&s.issuer, "issuer", "", "the authenticator app shows `NAME`")
	f.IntVar(&s.backupCodes, "backup-codes", 0, "make `N` backup codes")
}

// A userFlag is an option whose place among the others counts.
type userFlag struct {
	s    *specFlags
	name string
	set  func(string) error
	bool bool
}

func (f *userFlag) String() string     { return "" }
func (f *userFlag) Set(v string) error { return f.set(v) }
func (f *userFlag) Type() string {
	if f.bool {
		return "bool"
	}
	return "string"
}

var errNoUserBefore = errors.New("which user is it for? name it before, by --user")

func (s *specFlags) user(name string) error {
	s.users = append(s.users, cloudinit.User{Name: name})
	s.keyFiles, s.rFiles = append(s.keyFiles, nil), append(s.rFiles, nil)
	return nil
}

// ofUser is an option of the user before it.
func (s *specFlags) ofUser(name string, set func(user int, v string)) *userFlag {
	return &userFlag{s: s, name: name, set: func(v string) error {
		if len(s.users) == 0 {
			return errNoUserBefore
		}
		s.perUser = append(s.perUser, name)
		set(len(s.users)-1, v)
		return nil
	}}
}

// read returns the spec that the options ask for.
func (s *specFlags) read(vendor bool) (cloudinit.Spec, error) {
	if s.policy != "" {
		return s.readPolicy(vendor)
	}
	spec := cloudinit.Spec{Vendor: vendor, Issuer: s.issuer, BackupCodes: s.backupCodes, EscrowRecipients: s.escrow}
	for _, text := range s.channels {
		c, err := parseChannel(text)
		if err != nil {
			return spec, err
		}
		spec.Channels = append(spec.Channels, c)
	}
	for i, u := range s.users {
		for _, name := range s.rFiles[i] {
			list, err := readRecipients(name)
			if err != nil {
				return spec, err
			}
			u.Recipients = append(u.Recipients, list...)
		}
		var err error
		if u.SSHKeys, err = readKeys(s.keyFiles[i]); err != nil {
			return spec, err
		}
		spec.Users = append(spec.Users, u)
	}
	if len(spec.Users) == 0 && !vendor {
		return spec, withHints(usageErrorf("nobody is named"), "--user NAME --recipient R, or --policy FILE")
	}
	if _, err := spec.Layer(); err != nil {
		return spec, usageError{specError(err)}
	}
	return spec, nil
}

// readPolicy takes all but the accounts from a file.
func (s *specFlags) readPolicy(vendor bool) (cloudinit.Spec, error) {
	for _, beside := range []struct {
		flag  string
		given bool
	}{
		{"--issuer", s.issuer != ""},
		{"--escrow", len(s.escrow) > 0},
		{"--channel", len(s.channels) > 0},
		{"--backup-codes", s.backupCodes != 0},
		{"--recipient", slices.Contains(s.perUser, "recipient")},
		{"--recipients-file", slices.Contains(s.perUser, "recipients-file")},
	} {
		if beside.given {
			return cloudinit.Spec{}, usageErrorf("%s: cannot stand beside --policy; write it into the file", beside.flag)
		}
	}
	data, err := readInput(s.policy, cloudinit.MaxSize)
	if err != nil {
		return cloudinit.Spec{}, err
	}
	spec, err := cloudinit.Parse(s.policy, data, vendor)
	if err != nil {
		return spec, specError(err)
	}
	for i, u := range s.users {
		at := slices.IndexFunc(spec.Users, func(p cloudinit.User) bool { return p.Name == u.Name })
		if at < 0 {
			return spec, withHints(usageErrorf("--user %q: is not in the policy %q", u.Name, s.policy), "add it there, with its recipients")
		}
		keys, err := readKeys(s.keyFiles[i])
		if err != nil {
			return spec, err
		}
		spec.Users[at].SSHKeys, spec.Users[at].Sudo, spec.Users[at].Shell = keys, u.Sudo, u.Shell
	}
	_, err = spec.Layer()
	return spec, specError(err)
}

// readKeys returns the login keys that the values of --ssh-key name: files, or the keys
// themselves. Among several keys in one value, those that sshd does not accept are
// skipped with a warning: a file of all keys of an account often has some.
func readKeys(list []string) ([]string, error) {
	var keys []string
	for _, v := range list {
		where, read := fmt.Sprintf("file %q", v), readNumbered
		if isKeyText(v) {
			where, read = "--ssh-key", func(v string) ([]fileLine, error) { return textLines("--ssh-key", v) }
		}
		lines, err := read(v)
		if err != nil {
			return nil, err
		}
		if len(lines) == 0 {
			return nil, fmt.Errorf("%s: holds no public key", where)
		}
		good, skipped := split(lines, func(line string) bool { return refusedKey(line) == nil })
		if len(good) == 0 {
			good, skipped = lines, nil // an error says why
		}
		for _, l := range skipped {
			warningf("%s: line %d: skipped: %v", where, l.line, refusedKey(l.text))
		}
		keys = append(keys, texts(good)...)
	}
	return keys, nil
}

// refusedKey returns why sshd does not accept a public key, and nil for a text that is
// not a public key: that is an error of its own.
func refusedKey(line string) error {
	err := cloudinit.CheckSSHKey(line)
	if errors.Is(err, cloudinit.ErrNotSSHKey) || errors.Is(err, cloudinit.ErrPrivateKey) {
		return nil
	}
	return err
}

// isKeyText reports whether a value of --ssh-key is a public key, or several, and not
// the name of a file.
func isKeyText(v string) bool {
	if _, err := os.Stat(v); err == nil {
		return false
	}
	return strings.Contains(v, "\n") || cloudinit.HasSSHKeyType(v)
}

// maxLines bounds a file of keys.
const maxLines = 1 << 20

var errNoRecipient = errors.New("no recipient")

// readRecipients returns the recipients in a file, at least one: a file without any is
// often what is left of a keygen that failed. SSH keys that cannot decrypt are skipped
// with a warning where there are others, as age does: a file of all keys of an account
// often has some.
func readRecipients(name string) ([]string, error) {
	lines, err := readNumbered(name)
	if err != nil {
		return nil, err
	}
	good, skipped := split(lines, func(line string) bool {
		_, err := seal.ParseRecipient(line)
		return !errors.Is(err, seal.ErrUnsupportedSSH) && !errors.Is(err, seal.ErrShortRSA)
	})
	switch {
	case len(lines) == 0:
		return nil, withHints(fmt.Errorf("file %q: %w", name, errNoRecipient), "write the output of totpctl keygen -y to it")
	case len(good) == 0:
		return texts(skipped), nil // an error says why
	}
	for _, l := range skipped {
		typ, _, _ := strings.Cut(l.text, " ")
		warningf("file %q: line %d: %q key is skipped: age cannot seal to it", name, l.line, typ)
	}
	return texts(good), nil
}

// A fileLine is a line of a file, with its number.
type fileLine struct {
	line int
	text string
}

func split(lines []fileLine, keep func(line string) bool) (kept, rest []fileLine) {
	for _, l := range lines {
		if keep(l.text) {
			kept = append(kept, l)
		} else {
			rest = append(rest, l)
		}
	}
	return kept, rest
}

func texts(lines []fileLine) []string {
	var out []string
	for _, l := range lines {
		out = append(out, l.text)
	}
	return out
}

// readNumbered returns the lines of a file, without comments.
func readNumbered(name string) ([]fileLine, error) {
	data, err := readInput(name, maxLines)
	if err != nil {
		// The name may be a key that was meant to be in a file.
		if secret := notPublic(name); secret != nil {
			return nil, secret
		}
		return nil, err
	}
	return textLines(fmt.Sprintf("file %q", name), string(data))
}

// textLines returns the lines of a text, without comments. where names it in errors.
func textLines(where, text string) ([]fileLine, error) {
	var lines []fileLine
	n := 0
	for line := range strings.Lines(text) {
		n++
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, fileLine{n, line})
		}
	}
	if err := notPublic(text); err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	return lines, nil
}

// notPublic knows the files that are taken for one of public keys, of which no line
// must get into an error.
func notPublic(text string) error {
	const public = "name the file with the public half: it ends in .pub, or "
	switch {
	case strings.Contains(text, "AGE-SECRET-KEY-"):
		return withHints(cloudinit.ErrPrivateKey, public+"totpctl keygen -y prints it")
	case strings.Contains(text, "PRIVATE KEY"):
		return withHints(cloudinit.ErrPrivateKey, public+"ssh-keygen -y prints it")
	case strings.Contains(text, "PuTTY-User-Key-File"):
		return withHints(cloudinit.ErrPrivateKey, "load it into PuTTYgen, and give the one line in the box at its top")
	case strings.Contains(text, "BEGIN SSH2 PUBLIC KEY"):
		return withHints(cloudinit.ErrNotSSHKey, "ssh-keygen -i prints it as one, and PuTTYgen in the box at its top")
	}
	return nil
}

// parseChannel reads TYPE, TYPE,port=NAME or TYPE,device=PATH. Whatever else a channel has may be
// a secret, which is not for a command line.
func parseChannel(text string) (cloudinit.Channel, error) {
	typ, rest, more := strings.Cut(text, ",")
	c := cloudinit.Channel{Type: typ}
	if !more {
		return c, nil
	}
	switch key, value, _ := strings.Cut(rest, "="); key {
	case "port":
		c.Port = value
	case "device":
		c.Device = value
	default:
		return c, withHints(usageErrorf("--channel: only port=NAME or device=PATH can follow the type"), "write other channels into a file: --policy FILE")
	}
	return c, nil
}

// readRaw reads a file as it is.
func readRaw(name string, limit int) ([]byte, error) {
	what, r := "standard input", io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fileError(name, err)
		}
		defer f.Close()
		what, r = fmt.Sprintf("file %q", name), f
	}
	data, err := io.ReadAll(io.LimitReader(r, int64(limit)+1)) // one more: whether it is too large is for the merge to say
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, reason(err))
	}
	return data, nil
}
