// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package boots_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/nspawn"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/port"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/scenario"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// server is an instance of an image, for one test.
type server struct {
	*nspawn.Machine
	t     *testing.T
	img   *image
	dir   string
	codes map[string]*login.Codes // by the card's ID
}

// newServer returns an instance of an image that enrolls alice and bob. It has never
// been booted, and its user-data are empty.
func newServer(t *testing.T, r rootfs.Recipe) *server {
	t.Helper()
	return newServerOf(t, imageOf(t, r, forAliceAndBob), "#cloud-config\n{}\n")
}

func newServerOf(t *testing.T, img *image, userData string) *server {
	t.Helper()
	root, err := img.root.Clone()
	if err != nil {
		t.Fatal(err)
	}
	m, err := nspawn.New(root)
	if err != nil {
		_ = root.Close()
		t.Fatal(err)
	}
	s := newServerOn(t, img, m)
	s.seed("web1", userData)
	return s
}

func newServerOn(t *testing.T, img *image, m *nspawn.Machine) *server {
	s := &server{Machine: m, t: t, img: img, dir: t.TempDir(), codes: map[string]*login.Codes{}}
	t.Cleanup(func() {
		if t.Failed() {
			s.report()
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// report logs what helps to understand a failed test.
func (s *server) report() {
	s.t.Logf("console:\n%s", s.Console())
	if s.Running() {
		out, _ := s.Command(s.t.Context(), "sh", "-c", "systemctl --failed; journalctl --boot --no-pager --lines=150").CombinedOutput()
		s.t.Logf("journal:\n%s", out)
	}
}

// started returns an instance of an image that enrolls alice and bob, after its first
// boot.
func started(t *testing.T, r rootfs.Recipe) *server {
	t.Helper()
	s := newServer(t, r)
	s.start()
	return s
}

// seed makes the server, which is shut down, the instance i-name of these user-data.
func (s *server) seed(name, userData string) {
	s.t.Helper()
	if err := s.Insert(nspawn.Seed{InstanceID: "i-" + name, Hostname: name, UserData: userData}); err != nil {
		s.t.Fatal(err)
	}
}

// start boots the server, waits until it is up, and until its envelopes have gone
// where they can.
func (s *server) start() {
	s.t.Helper()
	if err := s.Start(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.deliver()
}

// deliver waits for the end of a delivery, of an agent that has run to its end. On a
// busy host its unit stops it, sshd starts, and systemd runs it again.
func (s *server) deliver() {
	s.t.Helper()
	err := s.until("the agent", func() bool {
		return !slices.Contains([]string{"activating", "deactivating"}, s.active("totp-agent.service"))
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.must("systemctl", "start", "totp-deliver.service")
}

func (s *server) reboot() {
	s.t.Helper()
	if err := s.Reboot(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	s.deliver()
}

func (s *server) powerOff() {
	s.t.Helper()
	if err := s.PowerOff(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) cut() {
	s.t.Helper()
	if err := s.Cut(); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for something that a running server does.
func (s *server) until(what string, reached func() bool) error {
	for start := time.Now(); !reached(); time.Sleep(2 * time.Millisecond) { // short: an event may pass
		if !s.Running() {
			return fmt.Errorf("waiting for %s: %w", what, nspawn.ErrEnded)
		}
		if time.Since(start) > 10*time.Minute {
			return fmt.Errorf("waiting for %s: %w", what, nspawn.ErrTimeout)
		}
	}
	return nil
}

// clone returns another instance on a copy of the disk of this one, which is shut
// down.
func (s *server) clone(name, userData string) *server {
	s.t.Helper()
	m, err := s.Clone()
	if err != nil {
		s.t.Fatal(err)
	}
	c := newServerOn(s.t, s.img, m)
	c.seed(name, userData)
	return c
}

// must runs a command on the server and returns its standard output.
func (s *server) must(argv ...string) string {
	s.t.Helper()
	out, err := s.Run(s.t.Context(), argv...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// sh runs a shell script on the server, with -e and -u, and returns its standard
// output.
func (s *server) sh(script string) string {
	s.t.Helper()
	return s.must("sh", "-euc", script)
}

// agent runs the server's agent, and returns what it wrote and its exit status.
func (s *server) agent(args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	cmd := s.Command(s.t.Context(), append([]string{agentPath}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// status is what status --json says.
func (s *server) status() enroll.Status {
	s.t.Helper()
	var st enroll.Status
	out, errs, code := s.agent("status", "--json") // it exits 1 if something needs attention
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		s.t.Fatalf("status --json: exit %d, %v: %s%s", code, err, out, errs)
	}
	return st
}

// user returns the status of a user.
func (s *server) user(name string) enroll.UserStatus {
	s.t.Helper()
	st := s.status()
	if n := slices.IndexFunc(st.Users, func(u enroll.UserStatus) bool { return u.Name == name }); n >= 0 {
		return st.Users[n]
	}
	return enroll.UserStatus{Why: "is not in the status"}
}

// read returns a file of the server's disk, which may be running or not.
func (s *server) read(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.Path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// write writes a file to the server's disk, which may be running or not.
func (s *server) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	if err := os.MkdirAll(path.Dir(s.Path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(name), []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

// list returns the names in a directory of the server's disk, none if it is missing.
func (s *server) list(dir string) []string {
	s.t.Helper()
	entries, err := os.ReadDir(s.Path(dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		s.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// states returns the PAM states on the server's disk, by user.
func (s *server) states() map[string]otp.State {
	s.t.Helper()
	states := map[string]otp.State{}
	for _, name := range s.list(target.PAMStateDir) {
		st, err := otp.ParseState([]byte(s.read(target.PAMStateDir + "/" + name)))
		if err != nil {
			s.t.Fatalf("%s: %v", name, err)
		}
		states[name] = st
	}
	return states
}

// cards opens every envelope of the file channel with Debian's age and the owner's
// identity. Two for one user are an error.
func (s *server) cards() map[string]card.Card {
	s.t.Helper()
	cards := map[string]card.Card{}
	for _, name := range s.list(envelopes) {
		user, _, _ := strings.Cut(name, ".")
		if _, twice := cards[user]; twice {
			s.t.Fatalf("two envelopes of %s: %v", user, s.list(envelopes))
		}
		cards[user] = s.open(user, []byte(s.read(envelopes+"/"+name)))
	}
	return cards
}

// open decrypts a user's envelope.
func (s *server) open(user string, envelope []byte) card.Card {
	s.t.Helper()
	p := s.img.people[user]
	if p == nil {
		s.t.Fatalf("an envelope for %s, a user that this test does not know", user)
	}
	cmd := exec.CommandContext(s.t.Context(), "age", "--decrypt", "--identity", p.identity)
	cmd.Stdin = bytes.NewReader(envelope)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("age -d: %v: %s", err, complaints.String())
	}
	c, err := card.Parse(out)
	if err != nil {
		s.t.Fatal(err)
	}
	if c.User != user {
		s.t.Fatalf("the card is of %q, want %q", c.User, user)
	}
	return c
}

// ssh is where the server is logged in to. Its host keys are a card's: a client of a
// test trusts what the owner would.
func (s *server) ssh(c card.Card) login.Server {
	s.t.Helper()
	server := login.Server{Host: "127.0.0.1", Port: s.Port()}
	lines, err := c.KnownHosts("127.0.0.1")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, line := range lines {
		_, key, _ := strings.Cut(line, " ")
		server.HostKeys = append(server.HostKeys, key)
	}
	return server
}

// shownKeys is where the server is logged in to without a card: the host keys are
// those on its disk.
func (s *server) shownKeys() login.Server {
	s.t.Helper()
	server := login.Server{Host: "127.0.0.1", Port: s.Port()}
	for line := range strings.Lines(s.sh("cat /etc/ssh/ssh_host_*_key.pub")) {
		f := strings.Fields(line)
		server.HostKeys = append(server.HostKeys, f[0]+" "+f[1])
	}
	return server
}

// account is a person with the codes of a card, or without if its user is empty.
func (s *server) account(user string, c card.Card) login.Account {
	p := s.img.people[user]
	a := login.Account{User: user, Key: p.key, Password: p.password}
	if c.User != "" {
		if s.codes[c.ID] == nil {
			s.codes[c.ID] = login.NewCodes(c.Secret, c.BackupCodes)
		}
		a.Codes = s.codes[c.ID]
	}
	return a
}

// enter logs in with key and a fresh code of a card, with OpenSSH's client.
func (s *server) enter(c card.Card, want login.Outcome) login.Result {
	s.t.Helper()
	return s.enterAt(s.ssh(c), c, want)
}

func (s *server) enterAt(at login.Server, c card.Card, want login.Outcome) login.Result {
	s.t.Helper()
	var r login.Result
	// A connection that comes while sshd starts again, or while it still counts the
	// connections of another test from this address, is closed.
	for range 3 {
		var err error
		if r, err = login.Enter(s.t.Context(), login.OpenSSH{Dir: s.dir}, at, s.account(c.User, c)); err != nil {
			s.t.Fatal(err)
		}
		if r.Outcome != login.Failed || want == login.Failed {
			break
		}
		for n := 0; n < 120 && !port.Greeted(s.t.Context(), net.JoinHostPort(at.Host, strconv.Itoa(at.Port)), time.Minute); n++ {
			time.Sleep(500 * time.Millisecond)
		}
	}
	if r.Outcome != want {
		s.t.Errorf("%s with card %s: %v, want %v", c.User, c.ID, r, want)
	}
	return r
}

// keyAlone tries a user's key alone, which must not be enough.
func (s *server) keyAlone(at login.Server, user string) login.Result {
	s.t.Helper()
	var r login.Result
	// A connection that comes while sshd starts again is reset.
	for range 20 {
		r = login.OpenSSH{Dir: s.dir}.Login(s.t.Context(), at, login.Try{
			User: user, Key: s.img.people[user].key, Methods: []string{login.PublicKey},
		})
		if r.Outcome != login.Failed {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	if r.Outcome != login.Unasked || !r.KeyTaken() {
		s.t.Errorf("%s with the key alone: %v", user, r)
	}
	return r
}

// table tries everything with alice and bob, enrolled, and carol, who is not.
func (s *server) table(cards map[string]card.Card) {
	s.t.Helper()
	carol := s.account("carol", card.Card{})
	rows, err := login.Table(s.t.Context(), login.Plan{
		Server:   s.ssh(cards["alice"]),
		Enrolled: []login.Account{s.account("alice", cards["alice"]), s.account("bob", cards["bob"])},
		Stranger: &carol,
		Dir:      s.dir,
	})
	s.passed(rows, err)
}

// short tries what tells most in the fewest attempts: alice with her card, and carol,
// who is not enrolled.
func (s *server) short(at login.Server, c card.Card) {
	s.t.Helper()
	rows, err := login.Short(s.t.Context(), login.Go{}, at, s.account(c.User, c), s.account("carol", card.Card{}))
	s.passed(rows, err)
}

func (s *server) passed(rows login.Rows, err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Logf("\n%s", rows)
	if !rows.OK() {
		s.t.Error("the login table is not as expected")
	}
}

// result returns the Result of a unit, "success" if it never failed.
func (s *server) result(unit string) string {
	s.t.Helper()
	return strings.TrimSpace(s.must("systemctl", "show", "--property=Result", "--value", unit))
}

// active returns the ActiveState of a unit.
func (s *server) active(unit string) string {
	s.t.Helper()
	return strings.TrimSpace(s.must("systemctl", "show", "--property=ActiveState", "--value", unit))
}

// journal returns what a unit has said, and systemd about it, in this boot.
func (s *server) journal(unit string) string {
	s.t.Helper()
	return s.must("journalctl", "--boot", "--no-pager", "--output=cat", "--unit="+unit)
}

// cycles looks for ordering cycles in all that systemd has said in this boot, on the
// console and in the journal.
func (s *server) cycles() {
	s.t.Helper()
	journal := s.sh("journalctl --boot --no-pager --output=cat _PID=1")
	if !strings.Contains(journal, "Reached target") {
		s.t.Fatalf("the journal has nothing of systemd's: %q", journal)
	}
	if err := scenario.Cycles(s.Console(), journal); err != nil {
		s.t.Error(err)
	}
}

// differing returns the users whose secret is not the same in both.
func differing(a, b map[string]otp.State) []string {
	var users []string
	for user := range a {
		if a[user].Secret != b[user].Secret {
			users = append(users, user)
		}
	}
	for user := range b {
		if _, ok := a[user]; !ok {
			users = append(users, user)
		}
	}
	slices.Sort(users)
	return users
}

// sums returns a digest of each file that binds the server to its secrets, its PAM
// state files and its identity.
func (s *server) sums() map[string]string {
	s.t.Helper()
	sums := s.digests(target.PAMStateDir)
	sums[target.Identity] = digest(s.read(target.Identity))
	return sums
}

// sealed returns a digest of each envelope of the file channel.
func (s *server) sealed() map[string]string {
	s.t.Helper()
	return s.digests(envelopes)
}

func (s *server) digests(dir string) map[string]string {
	s.t.Helper()
	sums := map[string]string{}
	for _, name := range s.list(dir) {
		sums[path.Join(dir, name)] = digest(s.read(path.Join(dir, name)))
	}
	return sums
}

func digest(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
