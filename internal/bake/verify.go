// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/access"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// An sshd is the guest's sshd as far as it can be asked without starting it.
type sshd struct {
	t    *target.Target
	unit string
	args []string // as its unit gives them
	key  []string // a throw-away host key, where the machine has none yet
	undo []func() error
}

// scratchDir is where the throw-away host key is, on a tmpfs of a machine that
// runs.
const scratchDir = target.RunDir + "/bake"

// openSSHD makes sshd's test mode work: it needs its directory under /run and
// one host key, which an image need not have. Close removes what was made.
//
// sshd is asked with the arguments that its unit starts it with.
func openSSHD(ctx context.Context, t *target.Target) (*sshd, error) {
	s := &sshd{t: t}
	start, err := StartOf(t)
	if err != nil {
		return nil, err
	}
	s.unit, s.args = start.Unit.Name, start.ConfigArgs()
	for _, d := range []string{"/run", target.SSHDRunDir} {
		if t.Exists(d) {
			continue
		}
		// On a machine that runs, sshd may start meanwhile and need it.
		if !t.Booted() {
			s.undo = append(s.undo, func() error { return t.Remove(d) })
		}
		if err := t.Mkdir(d, 0o755); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	_, stderr, err := s.ask(ctx, "-t")
	if err == nil || !bytes.Contains(stderr, []byte("no hostkeys available")) {
		return s, nil // what else is wrong, test will tell
	}
	if !t.Exists(target.RunDir) {
		s.undo = append(s.undo, func() error { return t.Remove(target.RunDir) })
		if err := t.Mkdir(target.RunDir, 0o755); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	s.undo = append(s.undo, func() error { return t.RemoveAll(scratchDir) })
	if err := t.Mkdir(scratchDir, 0o700); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	key := path.Join(scratchDir, "host_key")
	if _, err := t.Run(ctx, target.SSHKeygen, "-q", "-t", "ed25519", "-N", "", "-f", key); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.key = []string{"-h", key}
	return s, nil
}

// askLimit is how long sshd may take to read its configuration: for ever, where
// a file of it is a named pipe.
const askLimit = 2 * time.Minute

// ask runs sshd in a test mode, with the arguments of its unit.
func (s *sshd) ask(ctx context.Context, mode ...string) (stdout, stderr []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	stdout, stderr, err = s.t.Output(ctx, slices.Concat([]string{target.SSHD}, mode, s.key, s.args)...)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrSSHDRefuses, err)
	}
	return stdout, stderr, err
}

// with is the same sshd, started by another unit.
func (s *sshd) with(start *Start) *sshd {
	return &sshd{t: s.t, unit: start.Unit.Name, args: start.ConfigArgs(), key: s.key}
}

// Close leaves the machine as it was found.
func (s *sshd) Close() error {
	var errs []error
	for i := len(s.undo) - 1; i >= 0; i-- {
		errs = append(errs, missingIsFine(s.undo[i]()))
	}
	s.undo = nil
	return errors.Join(errs...)
}

// test tells whether sshd would start.
func (s *sshd) test(ctx context.Context) error {
	_, _, err := s.ask(ctx, "-t")
	return err
}

// effective asks sshd for the settings that a connection gets. The keywords are
// in lower case. Only plain sshd -T would leave out all Match blocks.
func (s *sshd) effective(ctx context.Context, c connection) (map[string]string, error) {
	out, _, err := s.ask(ctx, "-T", "-C", "user="+c.user+",host=client.invalid,addr="+c.addr.String()+",laddr=192.0.2.2,lport=22")
	if err != nil {
		return nil, err
	}
	return parseEffective(out), nil
}

func parseEffective(out []byte) map[string]string {
	m := map[string]string{}
	for sc := bufio.NewScanner(bytes.NewReader(out)); sc.Scan(); {
		keyword, value, _ := strings.Cut(sc.Text(), " ")
		if keyword = strings.ToLower(keyword); keyword != "" && m[keyword] == "" {
			m[keyword] = strings.TrimSpace(value)
		}
	}
	return m
}

// A weakness is a setting that is not as wanted for one connection.
type weakness struct {
	connection
	keyword, want, got string
}

func (w weakness) String() string {
	return fmt.Sprintf("%s %s for user %q from %s, want %s", w.keyword, w.got, w.user, w.addr, w.want)
}

// weaknesses compares what sshd does with what it is to do.
func weaknesses(c connection, exempt bool, got map[string]string, want []setting) []weakness {
	var ws []weakness
	for _, s := range want {
		keyword := strings.ToLower(s.keyword)
		if keyword == "challengeresponseauthentication" && got[keyword] == "" {
			continue // an alias that sshd -T shows by its other name only
		}
		if exempt && s.keyword == "AuthenticationMethods" {
			s.value = keyAlone
		}
		if !strings.EqualFold(got[keyword], s.value) {
			ws = append(ws, weakness{connection: c, keyword: s.keyword, want: s.value, got: got[keyword]})
		}
	}
	return ws
}

// nobody is a user who does not exist: what sshd does with that name, it does
// with every name that no rule is about.
const nobody = "totp-no-such-user"

// A login is a connection that sshd is asked about, and what it is to demand.
type login struct {
	connection
	exempt bool
}

// logins are those of root, of all accounts that can log in and of nobody, from an
// address that no rule is about and from one of each network that is exempt.
func logins(ctx context.Context, t *target.Target, p policy.SSHD) ([]login, error) {
	us, err := t.Users()
	if err != nil {
		return nil, err
	}
	accounts := []target.User{{Name: "root"}}
	for _, u := range us {
		if u.Name != "root" && target.ValidUserName(u.Name) == nil && (u.CanLogin() || u.UID == 0) {
			accounts = append(accounts, u)
		}
	}
	accounts = append(accounts, target.User{Name: nobody, UID: -1})
	var ls []login
	for _, u := range accounts {
		var groups []string
		if u.UID > 0 {
			if groups, err = t.GroupsOf(u); err != nil {
				return nil, err
			}
			if len(p.ExemptGroups) > 0 { // sshd asks all that nsswitch.conf names
				groups = append(groups, t.DirectoryGroupsOf(ctx, u)...)
			}
		}
		for _, addr := range addresses(p) {
			c := connection{u.Name, addr}
			ls = append(ls, login{c, u.UID != 0 && p.Exempts(u.Name, groups, addr)})
		}
	}
	return ls, nil
}

// verify lets sshd judge what was written.
func (b *baker) verify(ctx context.Context) (_ string, err error) {
	s, err := openSSHD(ctx, b.t)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if _, ps := b.facts.started(b.t); len(ps) > 0 {
		return "", ps.err()
	}
	if err := s.test(ctx); err != nil {
		return "", err
	}
	roots, err := rootNames(b.t)
	if err != nil {
		return "", err
	}
	for _, name := range b.facts.policy.SSHD.ExemptUsers {
		if slices.Contains(roots, name) {
			return "", fmt.Errorf("sshd.exempt_users: %q: %w: %w; leave it out, and give automation an account of its own", name, ErrEffective, policy.ErrExemptRoot)
		}
	}
	ls, err := logins(ctx, b.t, b.facts.policy.SSHD)
	if err != nil {
		return "", err
	}
	if err := b.canLogIn(ctx, s); err != nil {
		return "", err
	}
	b.effective = map[string]map[string]string{}
	var sources []string
	exempt := map[string]bool{}
	for _, l := range ls {
		got, err := s.effective(ctx, l.connection)
		if err != nil {
			return "", err
		}
		if ws := weaknesses(l.connection, l.exempt, got, b.facts.auth()); len(ws) > 0 {
			return "", fmt.Errorf("%v: %w; remove the Match block or option that says so", ws[0], ErrEffective)
		}
		for _, s := range keySources(got) {
			if !slices.Contains(sources, s) {
				sources = append(sources, s)
			}
		}
		if b.effective[l.user] == nil { // the first address is of everywhere
			b.effective[l.user] = reported(got)
			exempt[l.user] = l.exempt
		}
	}
	var both, alone []string
	for _, user := range slices.Sorted(maps.Keys(b.effective)) {
		switch {
		case exempt[user]:
			alone = append(alone, user)
		case user != nobody:
			both = append(both, user)
		}
	}
	said := fmt.Sprintf("sshd demands key and code of %s, and of every other name", strings.Join(both, ", "))
	if len(alone) > 0 {
		said += "; a key alone of " + strings.Join(alone, ", ") + ", who are exempt"
	}
	if from := b.facts.policy.SSHD.ExemptFrom; len(from) > 0 {
		said += "; a key alone of all but root from " + strings.Join(from, ", ")
	}
	if len(sources) > 0 {
		said += "; besides authorized_keys, sshd accepts keys by " + strings.Join(sources, " and ")
	}
	return said, nil
}

// keySources are where sshd takes keys from that are in no file of a user. A login needs
// the code with those too.
func keySources(got map[string]string) (sources []string) {
	for _, keyword := range []string{"AuthorizedKeysCommand", "TrustedUserCAKeys"} {
		if v := got[strings.ToLower(keyword)]; v != "" && v != "none" {
			sources = append(sources, keyword+" "+v)
		}
	}
	return sources
}

// canLogIn refuses an image whose policy names a user that cannot log in. Their
// keys come with the first boot, and so do users whom the image does not have.
func (b *baker) canLogIn(ctx context.Context, s *sshd) error {
	local, err := b.t.Users()
	if err != nil {
		return err
	}
	c := access.New(b.t, access.Options{SSHDArgs: slices.Concat(s.key, s.args), IgnoreKeys: true})
	for i, u := range b.facts.policy.Users {
		var account target.User
		if j := slices.IndexFunc(local, func(a target.User) bool { return a.Name == u.Name }); j >= 0 {
			account = local[j]
		} else if account, err = b.t.LookupUser(ctx, u.Name); err != nil {
			continue
		}
		if account.UID == 0 && b.facts.policy.SSHD.RootLogin == policy.RootDeny {
			continue // the policy says so, and the status too
		}
		if v := c.Check(ctx, account); !v.Can() {
			return fmt.Errorf("users[%d]: %q: %w: %w", i, u.Name, ErrLockedOut, v.Problems[0])
		}
	}
	return nil
}

// reported are the settings that the report shows.
func reported(got map[string]string) map[string]string {
	m := map[string]string{}
	for keyword := range allKeywords() {
		if value, ok := got[keyword]; ok {
			m[keyword] = value
		}
	}
	return m
}
