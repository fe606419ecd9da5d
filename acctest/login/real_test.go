// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package login_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// twoFactor is the setup by hand, as guides have it: the tables below are about
// the lab, not about this project's own configuration.
const twoFactor = `
apt-get install --yes libpam-google-authenticator >/dev/null
sed -i 's/^@include common-auth/auth required pam_google_authenticator.so secret=\/var\/lib\/google-authenticator\/${USER} user=root noskewadj/' /etc/pam.d/sshd
cat > /etc/ssh/sshd_config.d/00-lab.conf <<END
KbdInteractiveAuthentication yes
PasswordAuthentication no
AuthenticationMethods publickey,keyboard-interactive:pam
UsePAM yes
END
mkdir -m 0700 /var/lib/google-authenticator
`

// lab is a root with three users: two enrolled, one not.
type lab struct {
	root     *rootfs.Root
	enrolled []login.Account
	stranger login.Account
	dir      string
}

// original is what every test's lab is a copy of. Its namespaces end with this
// process.
var original = sync.OnceValues(func() (*lab, error) {
	ctx := context.Background()
	root, err := rootfs.New(ctx, rootfs.Options{Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	if _, err := root.Shell(ctx, twoFactor); err != nil {
		return nil, err
	}
	l := &lab{root: root, dir: filepath.Join(dir, "keys")}
	if err := os.Mkdir(l.dir, 0o700); err != nil {
		return nil, err
	}
	for _, name := range []string{"alice", "bob", "carol"} {
		a, err := l.add(ctx, name, name != "carol")
		if err != nil {
			return nil, err
		}
		if a.Codes == nil {
			l.stranger = a
			continue
		}
		l.enrolled = append(l.enrolled, a)
	}
	return l, nil
})

// dir is there for as long as the tests run.
var dir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if dir, err = os.MkdirTemp("", "totp-login-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		return m.Run()
	}())
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if err := rootfs.Available(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	o, err := original()
	if err != nil {
		t.Fatal(err)
	}
	root, err := o.root.Clone()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	l := &lab{root: root, dir: t.TempDir(), stranger: o.stranger}
	for _, a := range o.enrolled {
		a.Codes = a.Codes.Copy()
		l.enrolled = append(l.enrolled, a)
	}
	return l
}

func (l *lab) add(ctx context.Context, name string, enroll bool) (login.Account, error) {
	key, err := login.NewKey(l.dir, name)
	if err != nil {
		return login.Account{}, err
	}
	a := login.Account{User: name, Key: key, Password: "a password of " + name}
	err = l.root.AddUser(ctx, rootfs.User{Name: name, Keys: []string{key.Public}, Password: a.Password})
	if err != nil || !enroll {
		return a, err
	}
	e, err := otp.New(otp.Params{Issuer: "Lab", Account: name + "@lab", BackupCodes: 2}, rand.Reader)
	if err != nil {
		return a, err
	}
	state := e.Secret + "\n\" RATE_LIMIT 3 30\n\" WINDOW_SIZE 3\n\" DISALLOW_REUSE\n\" TOTP_AUTH\n"
	for _, code := range e.BackupCodes {
		state += code + "\n"
	}
	a.Codes = login.NewCodes(e.Secret, e.BackupCodes)
	return a, os.WriteFile(l.root.Path("/var/lib/google-authenticator/"+name), []byte(state), 0o400)
}

func (l *lab) serve(t *testing.T) login.Server {
	t.Helper()
	sshd, err := l.root.StartSSHD(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("sshd:\n%s\nsyslog:\n%s", sshd.Log(), l.root.Syslog())
		}
	})
	keys, err := l.root.HostKeys()
	if err != nil {
		t.Fatal(err)
	}
	return login.Server{Host: sshd.Host, Port: sshd.Port, HostKeys: keys}
}

func (l *lab) table(t *testing.T, enrolled ...login.Account) login.Rows {
	t.Helper()
	rows, err := login.Table(t.Context(), login.Plan{
		Server: l.serve(t), Enrolled: enrolled, Stranger: &l.stranger, Dir: l.dir,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", rows)
	return rows
}

func TestTableOfARealServer(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	rows := l.table(t, l.enrolled...)
	if !rows.OK() || len(rows) != 10 {
		t.Errorf("not as expected:\n%s", rows)
	}
}

// The table must tell each of these mistakes, in the rows it concerns.
func TestTableShowsHoles(t *testing.T) {
	tests := []struct {
		name, script string
		wrong        []string
	}{
		{
			"any one method",
			`sed -i 's/^AuthenticationMethods.*/AuthenticationMethods publickey keyboard-interactive:pam/' /etc/ssh/sshd_config.d/00-lab.conf`,
			[]string{"key and code", "key alone", "code alone", "same code again", "key and wrong code"},
		},
		{
			"not enrolled is let in",
			`sed -i 's/noskewadj/noskewadj nullok/; /pam_google/a auth required pam_permit.so' /etc/pam.d/sshd`,
			[]string{"a user not enrolled"},
		},
		{
			"every code is right",
			`sed -i 's/required pam_google/sufficient pam_google/; /pam_google/a auth required pam_permit.so' /etc/pam.d/sshd`,
			[]string{"same code again", "key and wrong code", "same backup code again", "a user not enrolled"},
		},
		{
			"nobody comes in",
			`chmod 0666 /var/lib/google-authenticator/*`,
			[]string{"key and code", "key and backup code"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			broken := newLab(t)
			if _, err := broken.root.Shell(t.Context(), tt.script); err != nil {
				t.Fatal(err)
			}
			rows := broken.table(t, broken.enrolled...)
			var wrong []string
			for _, r := range rows {
				if !r.OK && !slices.Contains(wrong, r.Attempt) {
					wrong = append(wrong, r.Attempt)
				}
			}
			for _, name := range tt.wrong {
				if !slices.Contains(wrong, name) {
					t.Errorf("%q is not marked as wrong", name)
				}
			}
			if rows.OK() {
				t.Error("the table is fine")
			}
		})
	}
}

func TestADeadServerIsNoRefusal(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.serve(t)
	dead := server
	dead.Port = 1
	other := server
	key, err := login.NewKey(l.dir, "other")
	if err != nil {
		t.Fatal(err)
	}
	other.HostKeys = []string{key.Public}
	try := login.Try{User: "alice", Key: l.enrolled[0].Key, Answers: []string{"000000"},
		Methods: []string{login.PublicKey, login.KeyboardInteractive}}
	for _, c := range []login.Client{login.OpenSSH{Dir: l.dir}, login.PuTTY{Dir: l.dir}, login.Go{}} {
		for name, s := range map[string]login.Server{"dead": dead, "another host key": other} {
			if r := c.Login(t.Context(), s, try); r.Outcome != login.Failed || r.Detail == "" {
				t.Errorf("%s, %s: %v", c.Name(), name, r)
			}
		}
	}
}

func TestEveryClient(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.serve(t)
	alice, bob := l.enrolled[0], l.enrolled[1]
	for _, c := range []login.Client{login.OpenSSH{Dir: l.dir}, login.PuTTY{Dir: l.dir}, login.Go{}} {
		r, err := login.Enter(t.Context(), c, server, alice)
		if err != nil || r.Outcome != login.In || len(r.Prompts) != 1 {
			t.Errorf("%s: key and code: %v, %v, prompts %q", c.Name(), r, err, r.Prompts)
		}
		wrong, err := bob.Codes.Wrong()
		if err != nil {
			t.Fatal(err)
		}
		r = c.Login(t.Context(), server, login.Try{User: "carol", Key: l.stranger.Key, Answers: []string{wrong},
			Methods: []string{login.PublicKey, login.KeyboardInteractive}})
		if r.Outcome != login.Refused {
			t.Errorf("%s: not enrolled: %v", c.Name(), r)
		}
		r = c.Login(t.Context(), server, login.Try{User: "bob", Key: bob.Key, Methods: []string{login.PublicKey}})
		if r.Outcome != login.Unasked {
			t.Errorf("%s: key alone: %v", c.Name(), r)
		}
		r = c.Login(t.Context(), server, login.Try{User: "bob", Answers: []string{wrong}, Methods: []string{login.KeyboardInteractive}})
		if r.Outcome != login.Unasked {
			t.Errorf("%s: code alone: %v", c.Name(), r)
		}
	}
}

// What a person sees of a server for the first time, and ever after.
func TestPuTTYLooks(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	if _, err := l.root.Shell(t.Context(), `echo 'Keep out.' >/etc/issue.net; echo 'Banner /etc/issue.net' >>/etc/ssh/sshd_config.d/00-lab.conf`); err != nil {
		t.Fatal(err)
	}
	known := l.serve(t)
	var prints []string
	for _, line := range known.HostKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		prints = append(prints, ssh.FingerprintSHA256(key))
	}
	alice, unknown := l.enrolled[0], login.Server{Host: known.Host, Port: known.Port}
	for _, s := range []login.Server{unknown, known} {
		got, err := login.PuTTY{Dir: l.dir}.Look(t.Context(), s, alice.User, alice.Key)
		if err != nil {
			t.Fatal(err)
		}
		if asked := s.HostKeys == nil; slices.Contains(prints, got.HostKey) != asked || !strings.Contains(got.Text, "\n| Keep out.\r\n") {
			t.Errorf("asked about %q, shown %q", got.HostKey, got.Text)
		}
	}
	other := known
	other.HostKeys = []string{alice.Key.Public}
	if got, err := (login.PuTTY{Dir: l.dir}).Look(t.Context(), other, alice.User, alice.Key); err == nil {
		t.Errorf("of another server: %q", got.Text)
	}
}

// The module refuses the fourth attempt in half a minute before it asks.
func TestTheRateLimitIsARefusalWithoutAPrompt(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	// Four attempts may take half a minute on a busy machine.
	if _, err := l.root.Shell(t.Context(), "sed -i 's/RATE_LIMIT 3 30/RATE_LIMIT 3 600/' /var/lib/google-authenticator/alice"); err != nil {
		t.Fatal(err)
	}
	server := l.serve(t)
	alice := l.enrolled[0]
	wrong, err := alice.Codes.Wrong()
	if err != nil {
		t.Fatal(err)
	}
	try := login.Try{User: "alice", Key: alice.Key, Answers: []string{wrong},
		Methods: []string{login.PublicKey, login.KeyboardInteractive}}
	want := []login.Outcome{login.Refused, login.Refused, login.Refused, login.Unasked}
	for i, w := range want {
		if r := (login.OpenSSH{Dir: l.dir}).Login(t.Context(), server, try); r.Outcome != w || !r.KeyTaken() {
			t.Errorf("attempt %d: %v, want %v", i+1, r, w)
		}
	}
}
