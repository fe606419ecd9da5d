// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/leak"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

const (
	agentPath = "/usr/local/sbin/totp-agent" // where bake puts it
	newAgent  = "/root/totp-agent"           // where a test puts it for bake
	pamStates = "/var/lib/google-authenticator"
	envelopes = "/var/lib/totp-agent/envelopes"
)

// work is what all tests of this package share: the agent, keys, identities and
// a baked root, each made once.
type work struct {
	dir   string
	agent func() (string, error)            // path of the built agent
	image map[string]func() (*image, error) // by the suite
}

// image is a root before and after bake, on which nobody is enrolled; tests clone it.
type image struct {
	recipe rootfs.Recipe
	raw    *rootfs.Root // with its accounts, as a build finds it
	root   *rootfs.Root // baked
	policy string
	people map[string]*person
	log    string // what bake said
}

// person is an account of the image, with what its owner has at home.
type person struct {
	name, password string
	key            *login.Key
	identity       string // file of an age identity; empty: no recipient
	recipient      string
}

var lab work

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "totp-acctest-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		lab = work{dir: dir}
		lab.agent = sync.OnceValues(func() (string, error) { return buildAgent(dir) })
		lab.image = map[string]func() (*image, error){}
		for _, r := range rootfs.Debians {
			lab.image[r.Suite] = sync.OnceValues(func() (*image, error) { return newImage(filepath.Join(dir, r.Suite), r) })
		}
		return m.Run() // the image's namespaces end with this process
	}())
}

// needLab skips a test that cannot run here, and fails it where CI=true says that
// it must.
func needLab(t *testing.T) {
	t.Helper()
	err := rootfs.Available()
	if err == nil {
		err = programs("age", "ssh", "plink", "puttygen", "rsync")
	}
	if err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func programs(names ...string) error {
	var errs []error
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			errs = append(errs, fmt.Errorf("%s is not installed; run: go run ./acctest/setup test", name))
		}
	}
	return errors.Join(errs...)
}

func buildAgent(dir string) (string, error) {
	name := filepath.Join(dir, "totp-agent")
	return name, goBuild(context.Background(), name, "../cmd/totp-agent", "GOOS=linux")
}

// goBuild builds a static program.
func goBuild(ctx context.Context, name, pkg string, env ...string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", name, pkg)
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

func newPerson(dir, name string, enrolled bool) (*person, error) {
	key, err := login.NewKey(dir, name)
	if err != nil {
		return nil, err
	}
	p := &person{name: name, password: "the password of " + name, key: key}
	if !enrolled {
		return p, nil
	}
	identity, recipient, err := seal.GenerateX25519()
	if err != nil {
		return nil, err
	}
	p.identity, p.recipient = filepath.Join(dir, name+".age-identity"), recipient
	return p, os.WriteFile(p.identity, []byte(identity+"\n"), 0o600)
}

func newImage(dir string, recipe rootfs.Recipe) (*image, error) {
	ctx := context.Background()
	img := &image{recipe: recipe, people: map[string]*person{}}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	for name, enrolled := range map[string]bool{"root": false, "alice": true, "bob": true, "carol": false} {
		p, err := newPerson(dir, name, enrolled)
		if err != nil {
			return nil, err
		}
		img.people[name] = p
	}
	img.policy = policyFor(img.people["alice"], img.people["bob"])
	var err error
	if img.raw, err = rawRoot(ctx, img); err != nil {
		return nil, err
	}
	if img.root, err = img.raw.Clone(); err != nil {
		return nil, err
	}
	img.log, err = bakeRoot(ctx, img.root, img.policy)
	return img, err
}

// policyFor is a policy that enrolls these people and leaves their envelopes in
// files.
func policyFor(people ...*person) string {
	var b strings.Builder
	b.WriteString("version: 1\nissuer: Example Hosting\nbackup_codes: 4\nchannels:\n  - {type: file}\nusers:\n")
	for _, p := range people {
		fmt.Fprintf(&b, "  - {name: %s, recipients: [%s]}\n", p.name, p.recipient)
	}
	return b.String()
}

// rawRoot is the image before bake, with its accounts.
func rawRoot(ctx context.Context, img *image) (*rootfs.Root, error) {
	root, err := rootfs.New(ctx, rootfs.Options{Recipe: img.recipe, Log: os.Stderr})
	if err != nil {
		return nil, err
	}
	for _, p := range img.people {
		err := root.AddUser(ctx, rootfs.User{Name: p.name, Keys: []string{p.key.Public}, Password: p.password})
		if err != nil {
			return nil, err
		}
	}
	return root, nil
}

func bakeRoot(ctx context.Context, root *rootfs.Root, policy string) (string, error) {
	agent, err := lab.agent()
	if err != nil {
		return "", err
	}
	if err := copyFile(root.Path(newAgent), agent, 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(root.Path("/root/policy.yaml"), []byte(policy), 0o600); err != nil {
		return "", err
	}
	out, err := root.Command(ctx, newAgent, "bake", "--policy", "/root/policy.yaml").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("bake: %w\n%s", err, out)
	}
	return string(out), nil
}

// copyFile copies by a program of its own: a descriptor of this process that is
// open for writing may for a moment be another child's too, and nobody can run the
// file meanwhile (ETXTBSY).
func copyFile(to, from string, mode os.FileMode) error {
	out, err := exec.Command("install", fmt.Sprintf("--mode=%o", mode), "--", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("install: %w\n%s", err, out)
	}
	return nil
}

// machine is an instance of the image, for one test.
type machine struct {
	*rootfs.Root
	t     *testing.T
	img   *image
	dir   string
	codes sync.Map // *login.Codes by secret, of realLogin
}

// newMachine starts an instance of the image: a clone with a machine-id of its
// own, on which nothing has run yet.
func newMachine(t *testing.T) *machine {
	t.Helper()
	return newMachineOf(t, rootfs.Debian12)
}

func newMachineOf(t *testing.T, r rootfs.Recipe) *machine {
	t.Helper()
	needLab(t)
	img, err := lab.image[r.Suite]()
	if err != nil {
		t.Fatal(err)
	}
	m := cloneOf(t, img, img.root)
	m.must("sh", "-c", newMachineID)
	return m
}

// newMachineID is what a machine's first boot does, or what a clone of a machine
// is given.
const newMachineID = "tr -dc 0-9a-f </dev/urandom | head -c 32 >/etc/machine-id && echo >>/etc/machine-id"

// newGuest starts a clone of the root before bake, for a build.
func newGuest(t *testing.T) *machine {
	t.Helper()
	return newGuestOf(t, rootfs.Debian12)
}

func newGuestOf(t *testing.T, r rootfs.Recipe) *machine {
	t.Helper()
	needLab(t)
	img, err := lab.image[r.Suite]()
	if err != nil {
		t.Fatal(err)
	}
	return cloneOf(t, img, img.raw)
}

func cloneOf(t *testing.T, img *image, of *rootfs.Root) *machine {
	t.Helper()
	root, err := of.Clone()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Root: root, t: t, img: img, dir: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("syslog:\n%s", m.Syslog())
		}
		if err := root.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// must runs a command in the machine and returns its standard output.
func (m *machine) must(argv ...string) string {
	m.t.Helper()
	out, err := m.Run(m.t.Context(), argv...)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// said is what a command wrote and ended with.
type said struct {
	out, err string
	code     int
}

// agent runs the machine's agent, which need not succeed.
func (m *machine) agent(args ...string) said {
	m.t.Helper()
	return run(m.t, m.Command(m.t.Context(), append([]string{agentPath}, args...)...))
}

func run(t *testing.T, cmd *exec.Cmd) said {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return said{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// ok runs the machine's agent, which must succeed.
func (m *machine) ok(args ...string) said {
	m.t.Helper()
	s := m.agent(args...)
	if s.code != 0 {
		m.t.Fatalf("totp-agent %s: exit %d\n%s%s", strings.Join(args, " "), s.code, s.out, s.err)
	}
	return s
}

// firstBoot enrolls and delivers, and returns the cards.
func (m *machine) firstBoot() map[string]card.Card {
	m.t.Helper()
	m.ok("enroll")
	m.ok("deliver")
	return m.cards()
}

// cards opens every envelope of the file channel as its owner does, with age and
// the identity. Two for one user are an error.
func (m *machine) cards() map[string]card.Card {
	m.t.Helper()
	cards := map[string]card.Card{}
	for _, name := range m.list(envelopes) {
		user, _, _ := strings.Cut(name, ".")
		if _, twice := cards[user]; twice {
			m.t.Fatalf("two envelopes of %s: %v", user, m.list(envelopes))
		}
		cards[user] = m.open(user, m.Path(envelopes+"/"+name))
	}
	return cards
}

// envelope returns where a user's only envelope is.
func (m *machine) envelope(user string) string {
	m.t.Helper()
	names := slices.DeleteFunc(m.list(envelopes), func(name string) bool { return !strings.HasPrefix(name, user+".") })
	if len(names) != 1 {
		m.t.Fatalf("envelopes of %s: %v, want one", user, names)
	}
	return m.Path(envelopes + "/" + names[0])
}

// open decrypts a user's envelope with Debian's age.
func (m *machine) open(user, file string) card.Card {
	m.t.Helper()
	return m.openAs(m.img.people[user], user, file)
}

// openAs is open with somebody else's identity.
func (m *machine) openAs(p *person, user, file string) card.Card {
	m.t.Helper()
	s := run(m.t, exec.CommandContext(m.t.Context(), "age", "--decrypt", "--identity", p.identity, file))
	if s.code != 0 {
		m.t.Fatalf("age -d: exit %d: %s", s.code, s.err)
	}
	c, err := card.Parse([]byte(s.out))
	if err != nil {
		m.t.Fatal(err)
	}
	if c.User != user {
		m.t.Fatalf("the card is of %q, want %q", c.User, user)
	}
	return c
}

// list returns the names in a directory of the machine, none where it is missing.
func (m *machine) list(dir string) []string {
	m.t.Helper()
	entries, err := os.ReadDir(m.Path(dir))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		m.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// serve starts sshd. Its host keys are taken from a card, so that a client of
// this test trusts what the owner would.
func (m *machine) serve(c card.Card) login.Server {
	m.t.Helper()
	s, err := m.StartSSHD(m.t.Context(), append(m.patient(), m.unitOptions()...)...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("sshd:\n%s", s.Log())
		}
	})
	server := login.Server{Host: s.Host, Port: s.Port}
	lines, err := c.KnownHosts("127.0.0.1")
	if err != nil {
		m.t.Fatal(err)
	}
	for _, line := range lines {
		_, key, _ := strings.Cut(line, " ")
		server.HostKeys = append(server.HostKeys, key)
	}
	return server
}

// patient are options for an sshd that many refusals come to from one address:
// from OpenSSH 9.8 on it would stop to listen.
func (m *machine) patient() []string {
	m.t.Helper()
	if !strings.Contains(m.must("/usr/sbin/sshd", "-T"), "\npersourcepenalties ") {
		return nil
	}
	return []string{"-o", "PerSourcePenalties=no"}
}

// account is a person with the codes of a card, or none.
func (m *machine) account(user string, cards map[string]card.Card) login.Account {
	p := m.img.people[user]
	a := login.Account{User: user, Key: p.key, Password: p.password}
	if c, ok := cards[user]; ok {
		a.Codes = login.NewCodes(c.Secret, c.BackupCodes)
	}
	return a
}

// table tries everything with alice and bob, enrolled, and carol, who is not.
func (m *machine) table(cards map[string]card.Card) {
	m.t.Helper()
	carol := m.account("carol", cards)
	rows, err := login.Table(m.t.Context(), login.Plan{
		Server:   m.serve(cards["alice"]),
		Enrolled: []login.Account{m.account("alice", cards), m.account("bob", cards)},
		Stranger: &carol,
		Dir:      m.dir,
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Logf("\n%s", rows)
	if !rows.OK() {
		m.t.Error("the login table is not as expected")
	}
}

// status reads status --json, of which it knows what the tests need.
func (m *machine) status() status {
	m.t.Helper()
	var st status
	m.statusInto(&st)
	return st
}

func (m *machine) statusInto(v any) {
	m.t.Helper()
	s := m.agent("status", "--json") // it exits 1 where something needs attention
	if err := json.Unmarshal([]byte(s.out), v); err != nil {
		m.t.Fatalf("status --json: exit %d, %v: %s", s.code, err, s.err)
	}
}

type status struct {
	Error  string
	Notice string

	NoticeCode string `json:"notice_code"`
	Problems   []enroll.Problem
	Users      []struct {
		Name       string
		Enrolled   bool
		ID         string
		Generation int
		Why        string
		Delivery   map[string]struct{ State, Error string }
	}
}

// leaks looks for what the cards hold in every file of the machine and returns
// the files, which are to be the PAM state files alone.
func (m *machine) leaks(cards map[string]card.Card) []string {
	m.t.Helper()
	var all []*leak.Needles
	for _, c := range cards {
		n, err := leak.New(c.Secret, c.BackupCodes)
		if err != nil {
			m.t.Fatal(err)
		}
		all = append(all, n)
	}
	needles := leak.Join(all...)
	hits, extent, err := needles.Tree(m.Dir())
	if err != nil {
		m.t.Fatal(err)
	}
	if extent.Files < 3000 {
		m.t.Errorf("only %d files were searched", extent.Files)
	}
	hits = append(hits, needles.Bytes("syslog", []byte(m.Syslog()))...)
	// What was there before any secret was born is a coincidence.
	hits = slices.DeleteFunc(hits, func(h leak.Hit) bool {
		old, err := needles.File(filepath.Join(m.Base(), h.File))
		return err == nil && slices.ContainsFunc(old, func(o leak.Hit) bool { return o.Kind == h.Kind && o.Offset == h.Offset })
	})
	return leak.Files(hits)
}
