// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
)

const ownBanner = "Example Hosting. Keep out.\n"

// A server with nothing but sshd hands out cards by its banner, before the first
// login with a code, and after a reboot; beside a banner of the provider's own, and
// to real clients: OpenSSH, PuTTY and totpctl.
func TestBannerCarriesCards(t *testing.T) {
	t.Parallel()
	for _, r := range rootfs.Debians {
		t.Run(r.Suite, func(t *testing.T) {
			t.Parallel()
			testBannerCarriesCards(t, r)
		})
	}
}

func testBannerCarriesCards(t *testing.T, r rootfs.Recipe) {
	m := newMachineOf(t, r)
	identity := map[string]string{}
	policy := "version: 1\nissuer: Example Hosting\nchannels: [{type: ssh-banner}]\nusers:\n"
	for _, name := range []string{"alice", "bob"} {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		identity[name] = filepath.Join(m.dir, name+".identity")
		write(t, identity[name], id.String()+"\n")
		policy += fmt.Sprintf("  - {name: %s, recipients: [%s]}\n", name, id.Recipient())
	}
	write(t, m.Path("/etc/totp-agent/image.yaml"), policy)
	write(t, m.Path("/etc/issue.net"), ownBanner)
	m.must("sh", "-c", "echo 'Banner /etc/issue.net' >>/etc/ssh/sshd_config")
	m.ok("enroll")
	m.must("/usr/sbin/sshd", "-t")
	server := m.serveBanner()

	// sshd opens the banner at each connection.
	if got := m.sshBanner(server); got != ownBanner {
		t.Errorf("before delivery sshd shows %q", got)
	}
	m.ok("deliver")
	text, err := os.ReadFile(m.Path("/run/totp-agent/banner/text"))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.sshBanner(server); got != string(text) || !strings.HasPrefix(got, ownBanner) || strings.Count(got, "-----END AGE") != 2 {
		t.Errorf("sshd shows %q", got)
	}
	alice, said := m.fetch(server, identity["alice"], "alice")
	if alice.User != "alice" || !strings.Contains(said, "which is on the card") {
		t.Fatalf("fetched the card of %q: %s", alice.User, said)
	}
	if c := m.openPasted(m.plinkBanner(server), identity["bob"]); c.User != "bob" {
		t.Errorf("from PuTTY's window: the card of %q", c.User)
	}

	// The first login with a code takes the card away, and a reboot brings back the
	// other one only.
	m.logIn(server, alice)
	m.ok("logins")
	if got := m.sshBanner(server); strings.Count(got, "-----END AGE") != 1 {
		t.Errorf("after alice's login sshd shows %q", got)
	}
	bob, _ := m.fetch(server, identity["bob"], "bob")
	m.must("rm", "-r", "/run/totp-agent")
	m.ok("enroll")
	if got := m.sshBanner(server); strings.Count(got, "-----END AGE") != 1 {
		t.Errorf("after a reboot sshd shows %q", got)
	}
	m.logIn(server, bob)
	m.ok("logins")
	m.ok("deliver")
	if got := m.sshBanner(server); got != ownBanner {
		t.Errorf("in the end sshd shows %q", got)
	}
	if got := m.list("/var/lib/totp-agent/outbox/ready"); len(got) != 0 {
		t.Errorf("envelopes left: %v", got)
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serveBanner starts an sshd whose host keys are the machine's.
func (m *machine) serveBanner() login.Server {
	m.t.Helper()
	s, err := m.StartSSHD(m.t.Context(), m.patient()...)
	if err != nil {
		m.t.Fatal(err)
	}
	keys, err := m.HostKeys()
	if err != nil {
		m.t.Fatal(err)
	}
	return login.Server{Host: s.Host, Port: s.Port, HostKeys: keys}
}

func (m *machine) logIn(s login.Server, c card.Card) {
	m.t.Helper()
	if got := m.enters(s, c, login.NewCodes(c.Secret, c.BackupCodes)); got != login.In {
		m.t.Fatalf("%s: %v", c.User, got)
	}
}

// sshBanner is what the OpenSSH client shows of a server that it does not log in
// to. It puts a carriage return ahead of each newline on standard error.
func (m *machine) sshBanner(s login.Server) string {
	m.t.Helper()
	known := filepath.Join(m.dir, "known_hosts")
	var lines strings.Builder
	for _, key := range s.HostKeys {
		fmt.Fprintf(&lines, "[%s]:%d %s\n", s.Host, s.Port, key)
	}
	write(m.t, known, lines.String())
	cmd := exec.CommandContext(m.t.Context(), "ssh", "-F", "none", "-o", "PreferredAuthentications=none", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile="+known, "-o", "GlobalKnownHostsFile=none", "-o", "IdentityFile=none", "-o", "IdentityAgent=none",
		"-p", strconv.Itoa(s.Port), "alice@"+s.Host, "true")
	got := run(m.t, cmd)
	text, _, ok := strings.Cut(strings.ReplaceAll(got.err, "\r\n", "\n"), "alice@"+s.Host+": Permission denied")
	if !ok {
		m.t.Fatalf("ssh: exit %d: %s", got.code, got.err)
	}
	return text
}

// plinkBanner is what PuTTY shows to bob at a terminal, up to the prompt for his
// code. (Where it is refused at once, plink ends before all of it is shown.)
func (m *machine) plinkBanner(s login.Server) string {
	m.t.Helper()
	sight, err := login.PuTTY{Dir: m.dir}.Look(m.t.Context(), s, "bob", m.img.people["bob"].key)
	if err != nil {
		m.t.Fatal(err)
	}
	if !strings.Contains(sight.Text, "\n| -----BEGIN AGE ENCRYPTED FILE-----\r\n") {
		m.t.Fatalf("plink: %s", sight.Text)
	}
	return sight.Text
}

// desk runs totpctl away from the home and agent of whoever runs the tests.
func (m *machine) desk(input string, args ...string) said {
	m.t.Helper()
	program, err := totpctl()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.CommandContext(m.t.Context(), program, args...)
	cmd.Env = []string{"HOME=" + m.dir, "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(input)
	return run(m.t, cmd)
}

// fetch is what an owner does.
func (m *machine) fetch(s login.Server, identity, user string) (card.Card, string) {
	m.t.Helper()
	got := m.desk("", "fetch", "--json", "-i", identity, "--user", user, fmt.Sprintf("%s:%d", s.Host, s.Port))
	return m.cardOf(got), got.err
}

func (m *machine) openPasted(text, identity string) card.Card {
	m.t.Helper()
	return m.cardOf(m.desk(text, "open", "--json", "-i", identity))
}

func (m *machine) cardOf(got said) card.Card {
	m.t.Helper()
	var c card.Card
	if err := json.Unmarshal(bytes.TrimSpace([]byte(got.out)), &c); got.code != 0 || err != nil {
		m.t.Fatalf("totpctl: exit %d, %v: %s", got.code, err, got.err)
	}
	return c
}
