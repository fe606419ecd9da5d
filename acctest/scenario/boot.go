// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

// ErrCycle means that systemd has found units that wait for each other, of which
// it drops one at random.
var ErrCycle = errors.New("systemd found an ordering cycle")

// Sudo logs in with the card of a person who may use sudo, runs a shell script as
// root, and returns its standard output.
func (i *Instance) Sudo(ctx context.Context, c card.Card, script string) (string, error) {
	server, err := i.Server(c)
	if err != nil {
		return "", err
	}
	a, err := i.Account(c)
	if err != nil {
		return "", err
	}
	return login.Go{}.Run(ctx, server, a, "sudo sh -euc '"+strings.ReplaceAll(script, "'", `'\''`)+"'")
}

// OrderingCycles looks for ordering cycles in all that systemd has said in this
// boot: on the console, and in the journal, which a login with the card reads.
func (i *Instance) OrderingCycles(ctx context.Context, c card.Card) error {
	// --merge, since an image that was not shut down in order gets its machine-id in
	// the middle of its first boot, and the journal goes by that ID. grep ends with 1
	// where nothing matches; that there is a journal of this boot is seen in the
	// kernel's first line. sudo logs the command itself, which must not match.
	journal, err := i.Sudo(ctx, c, "journalctl --merge --no-pager --output=cat _BOOT_ID=$(tr -d - </proc/sys/kernel/random/boot_id) | grep -iE -e '^Linux version' -e '[o]rdering cycle' -e '[d]eleted to break'")
	if err != nil {
		return err
	}
	if !strings.Contains(journal, "Linux version") {
		return fmt.Errorf("the journal of this boot is not there: %q", journal)
	}
	return cycles(i.Machine.ConsoleLog(), journal)
}

// cycles returns the lines that tell of a cycle.
func cycles(texts ...string) error {
	var errs []error
	for _, text := range texts {
		for line := range strings.Lines(text) {
			lower := strings.ToLower(line)
			if strings.Contains(lower, "ordering cycle") || strings.Contains(lower, "deleted to break") {
				errs = append(errs, fmt.Errorf("%w: %s", ErrCycle, strings.TrimSpace(line)))
			}
		}
	}
	return errors.Join(errs...)
}

// Newcomer adds an account with a login key that the agent has not seen, as an
// administrator's adduser does, and gives root a password and [LookProgram], for the
// console. It is a login with the card that does it.
func (i *Instance) Newcomer(ctx context.Context, c card.Card, name string) (p *Person, password string, err error) {
	dir, err := os.MkdirTemp(i.dir, "newcomer-")
	if err != nil {
		return nil, "", err
	}
	key, err := login.NewKey(dir, name)
	if err != nil {
		return nil, "", err
	}
	password = rand.Text()
	p = &Person{Name: name, Key: key, Password: rand.Text()}
	_, err = i.Sudo(ctx, c, fmt.Sprintf(`useradd --create-home --shell /bin/bash %[1]s
mkdir -m 700 /home/%[1]s/.ssh
echo '%[2]s' >/home/%[1]s/.ssh/authorized_keys
chown -R %[1]s: /home/%[1]s/.ssh
printf '%%s\n' '%[1]s:%[3]s' 'root:%[4]s' | chpasswd
cat >%[5]s <<'EOF'
%[6]sEOF`, name, key.Public, p.Password, password, LookProgram, lookScript))
	return p, password, err
}

// Closed logs in as it is to be where the agent does not work: who is enrolled
// gets in with key and code and not with the key alone, a person with a key who is
// not enrolled does not get in, and on the console one can work.
func (i *Instance) Closed(ctx context.Context, c card.Card, stranger *Person, password string) (login.Rows, error) {
	server, err := i.Server(c)
	if err != nil {
		return nil, err
	}
	a, err := i.Account(c)
	if err != nil {
		return nil, err
	}
	if _, err := i.Machine.LogIn(ctx, password, "test $(id -u) = 0"); err != nil {
		return nil, err
	}
	return login.Short(ctx, login.Go{}, server, a, login.Account{User: stranger.Name, Key: stranger.Key, Password: stranger.Password})
}

// publicKey is a line of a public key's file that is short enough for a card.
var publicKey = regexp.MustCompile(`ssh-ed25519 [A-Za-z0-9+/=]+`)

// ReadHostKeys has root look on the console which host keys there are by now, for a
// card that has those of another time.
func (i *Instance) ReadHostKeys(ctx context.Context, password string) ([]string, error) {
	shown, err := i.Machine.LogIn(ctx, password, "cat /etc/ssh/ssh_host_*_key.pub")
	if err != nil {
		return nil, err
	}
	return hostKeys(shown)
}

// hostKeys finds the host keys in what the console shows.
func hostKeys(shown string) ([]string, error) {
	var keys []string
	for _, line := range publicKey.FindAllString(shown, -1) {
		key, err := card.HostKey(line)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if keys == nil {
		return nil, fmt.Errorf("no host key on the console: %q", shown)
	}
	return keys, nil
}

// Prove goes the whole way for another system, without what does not depend on
// it: a build, a first boot, envelopes, cards, and the short table of logins. The
// user-data name one user more, [Absent]. The instance goes on running.
func Prove(ctx context.Context, o Options) (*Result, error) {
	res := &Result{}
	var err error
	if o.Firewall != nil {
		o.System = o.System.With(o.Firewall.Packages, o.Firewall.Files)
	}
	if res.Lab, err = NewLab(ctx, o.System, o.Module, o.Cache, o.Work, o.Report); err != nil {
		return res, err
	}
	res.Lab.PullPlug, res.Lab.Firewall = o.PullPlug, o.Firewall
	if err := res.Lab.Bake(ctx); err != nil {
		return res, err
	}
	people, err := res.Lab.People(ctx)
	if err != nil {
		return res, err
	}
	if res.Instance, err = res.Lab.newInstance(ctx, "web1", people, byFileWithAbsent); err != nil {
		return res, err
	}
	if err := res.Instance.Boot(ctx); err != nil {
		return res, err
	}
	envelopes, err := res.Instance.Await(ctx, nil)
	if err != nil {
		return res, err
	}
	if err := res.Instance.Machine.WaitUp(ctx); err != nil {
		return res, err
	}
	for _, e := range envelopes {
		c, err := res.Instance.Open(ctx, e)
		if err != nil {
			return res, err
		}
		res.Cards = append(res.Cards, c)
	}
	first := res.Cards[0]
	server, err := res.Instance.Server(first)
	if err != nil {
		return res, err
	}
	a, err := res.Instance.Account(first)
	if err != nil {
		return res, err
	}
	for _, p := range people {
		if !p.Enrolled() {
			res.Rows, err = login.Short(ctx, login.Go{}, server, a, login.Account{User: p.Name, Key: p.Key, Password: p.Password})
		}
	}
	return res, err
}
