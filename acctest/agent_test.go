// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// The whole way by the agent alone on each Debian: bake, first boot, envelope,
// login.
func TestBakeEnrollDeliverLogin(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			testBakeEnrollDeliverLogin(t, r)
		})
	}
}

func testBakeEnrollDeliverLogin(t *testing.T, r rootfs.Recipe) {
	m := newMachineOf(t, r)
	if got := m.ok("check").out; strings.Contains(got, "critical") {
		t.Errorf("check of a fresh image: %s", got)
	}
	cards := m.firstBoot()
	if len(cards) != 2 {
		t.Fatalf("%d cards, want alice's and bob's", len(cards))
	}
	if got, want := m.list(pamStates), []string{"alice", "bob"}; !slices.Equal(got, want) {
		t.Errorf("PAM state files %v, want %v", got, want)
	}
	for _, u := range m.status().Users {
		_, enrolled := cards[u.Name]
		if u.Enrolled != enrolled {
			t.Errorf("status: %s: enrolled %v, want %v", u.Name, u.Enrolled, enrolled)
		}
		if enrolled && (u.ID != cards[u.Name].ID || u.Delivery["file"].State != "offered") {
			t.Errorf("status: %+v, want the card's id %s, offered", u, cards[u.Name].ID)
		}
		if !enrolled && u.Why == "" {
			t.Errorf("status: %s is not enrolled, without a reason", u.Name)
		}
	}
	m.table(cards)
	m.ok("check")
	want := []string{"var/lib/google-authenticator/alice", "var/lib/google-authenticator/bob"}
	if got := m.leaks(cards); !slices.Equal(got, want) {
		t.Errorf("the secrets are in %v, want %v", got, want)
	}
}

// Every verb run twice changes nothing the second time; another policy changes
// what depends on it.
func TestTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			testTwiceChangesNothing(t, r)
		})
	}
}

func testTwiceChangesNothing(t *testing.T, r rootfs.Recipe) {
	m := newMachineOf(t, r)
	m.must("groupadd", "deploy")
	if got := m.bakeAgain(m.img.policy); got != nil {
		t.Errorf("the second bake has changed %q", got)
	}
	m.otherPolicies()
	cards := m.firstBoot()
	before := snapshot(t, m.Dir())
	m.ok("enroll")
	m.ok("deliver")
	for _, name := range changed(before, snapshot(t, m.Dir())) {
		if !strings.HasPrefix(name, "/run/totp-agent/") {
			t.Errorf("the second boot has changed %s", name)
		}
	}
	if again := m.cards(); again["alice"].ID != cards["alice"].ID || again["alice"].Secret != cards["alice"].Secret {
		t.Error("the second boot has made another secret")
	}
}

// otherPolicies bakes with other policies for sshd, and with the first one in the
// end: each changes what depends on it, and nothing else.
func (m *machine) otherPolicies() {
	m.t.Helper()
	const (
		dropIn   = "/etc/ssh/sshd_config.d/00-00-totp.conf"
		login    = "/etc/ssh/sshd_totp_login.conf"
		hostKeys = "/etc/ssh/sshd_config.d/00-01-totp-hostkeys.conf"
		report   = "/var/lib/totp-agent/report.json"
		sums     = "/var/lib/totp-agent/login-files"
		image    = "/etc/totp-agent/image.yaml"
	)
	strict := "strict"
	if m.img.recipe.Suite == rootfs.Debian11.Suite {
		strict = "compatible" // there is no strict for it
	}
	first := snapshot(m.t, m.Dir())
	for _, tt := range []struct {
		sshd    string
		changes []string
	}{
		{"{algorithms: " + strict + ", exempt_groups: [deploy], tcp_forwarding: allow, root_login: deny}", []string{dropIn, login, image, sums, report}},
		{"{algorithms: distro}", []string{dropIn, hostKeys, login, image, sums, report}},
		{"{}", []string{dropIn, hostKeys, login, image, sums, report}},
	} {
		policy := m.img.policy + "sshd: " + tt.sshd + "\n"
		if got := m.bakeAgain(policy); !slices.Equal(got, tt.changes) {
			m.t.Errorf("sshd: %s has changed %q, want %q", tt.sshd, got, tt.changes)
		}
		if tt.sshd == "{}" {
			break // as at the beginning
		}
		if got := m.bakeAgain(policy); got != nil {
			m.t.Errorf("sshd: %s, again, has changed %q", tt.sshd, got)
		}
	}
	if got := ofBake(changed(first, snapshot(m.t, m.Dir()))); got != nil {
		m.t.Errorf("back at the first policy there is another %q", got)
	}
}

// bakeAgain bakes, and returns the files that it changed.
func (m *machine) bakeAgain(policy string) []string {
	m.t.Helper()
	before := snapshot(m.t, m.Dir())
	if _, err := bakeRoot(m.t.Context(), m.Root, policy); err != nil {
		m.t.Fatal(err)
	}
	return ofBake(changed(before, snapshot(m.t, m.Dir())))
}

// ofBake leaves out what the test brought, the agent and the policy, and what is
// apt's and the logs'.
func ofBake(names []string) (of []string) {
	for _, name := range names {
		if !strings.HasPrefix(name, "/root/") && !strings.HasPrefix(name, "/var/log/") && !strings.HasPrefix(name, "/var/cache/") {
			of = append(of, name)
		}
	}
	return of
}

// Without a recipient for anybody nobody is enrolled, and that is said where a
// person who cannot log in sees it: in sshd's banner.
func TestNobodyToEnrollIsSaid(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.must("sh", "-c", "printf 'version: 1\\nchannels: [{type: file}]\\n' > /etc/totp-agent/image.yaml")
	m.agent("enroll")
	if got := m.list(pamStates); len(got) != 0 {
		t.Errorf("state files %v", got)
	}
	if st := m.status(); st.Notice == "" {
		t.Error("status says nothing")
	}
	m.must("/usr/sbin/sshd", "-t")
	s, err := m.StartSSHD(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := m.HostKeys()
	if err != nil {
		t.Fatal(err)
	}
	alice := m.img.people["alice"]
	r := login.Go{}.Login(t.Context(), login.Server{Host: s.Host, Port: s.Port, HostKeys: keys}, login.Try{User: "alice", Key: alice.key,
		Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{"123456"}})
	if r.Outcome != login.Refused || r.Banner == "" {
		t.Errorf("%v, banner %q; want a refusal and a banner", r, r.Banner)
	}
}

// snapshot returns a digest of everything below a directory, by absolute name.
func snapshot(t *testing.T, top string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		digest := info.Mode().String()
		switch {
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			digest += target
		case d.Type().IsRegular():
			sum, err := contentOf(path, info)
			if err != nil {
				return err
			}
			digest += sum
		}
		all[strings.TrimPrefix(path, top)] = digest
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// contentOf is the digest of a file. A file that is as it was when it was read
// is not read again: nobody can set its ctime.
func contentOf(path string, info fs.FileInfo) (string, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("%s: no inode", path)
	}
	key := fmt.Sprint(path, st.Dev, st.Ino, st.Size, st.Mtim, st.Ctim)
	if sum, ok := contents.Load(key); ok {
		return sum.(string), nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(data))
	contents.Store(key, sum)
	return sum, nil
}

var contents sync.Map

// changed returns the names that are new, gone or different.
func changed(before, after map[string]string) []string {
	var names []string
	for name, digest := range after {
		if before[name] != digest {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
