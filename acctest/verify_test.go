// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
)

// totpctl is the desk tool, built once.
var totpctl = sync.OnceValues(func() (string, error) {
	name := filepath.Join(lab.dir, "totpctl")
	return name, goBuild(context.Background(), name, "../cmd/totpctl")
})

// verified is what totpctl verify --json printed, as far as the tests need it.
type verified struct {
	Result       string
	Error        string
	CodeAttempts int `json:"code_attempts"`
	HostKey      struct {
		Type       string
		VerifiedBy string `json:"verified_by"`
	} `json:"host_key"`
	Rows []struct{ ID, Seen, Status, Why string }
}

func (v verified) with(status string) []string {
	var ids []string
	for _, r := range v.Rows {
		if r.Status == status {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// verify runs totpctl verify away from the home and agent of whoever runs the
// tests.
func (m *machine) verify(args ...string) said {
	m.t.Helper()
	program, err := totpctl()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.CommandContext(m.t.Context(), program, append([]string{"verify"}, args...)...)
	cmd.Env = []string{"HOME=" + m.dir, "PATH=" + os.Getenv("PATH")}
	return run(m.t, cmd)
}

func (m *machine) verifyJSON(args ...string) (verified, said) {
	m.t.Helper()
	s := m.verify(append([]string{"--json"}, args...)...)
	var v verified
	if err := json.Unmarshal([]byte(s.out), &v); err != nil {
		m.t.Fatalf("%v: exit %d\n%s%s", err, s.code, s.out, s.err)
	}
	for _, r := range v.Rows {
		m.t.Logf("%-9s %s: %s %s", r.Status, r.ID, r.Seen, r.Why)
	}
	return v, s
}

func (m *machine) sshd() *rootfs.SSHD {
	m.t.Helper()
	d, err := m.StartSSHD(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		if m.t.Failed() {
			m.t.Logf("sshd:\n%s", d.Log())
		}
	})
	return d
}

// The owner of a server, with key, card and identity, sees all rows as expected,
// and the account is not locked by that.
func TestVerifyABakedServer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cards := m.firstBoot()
	alice := m.img.people["alice"]
	d := m.sshd()
	host := fmt.Sprintf("alice@%s", d.Addr())
	v, s := m.verifyJSON("-i", alice.key.File, "--card", m.envelope("alice"), "-I", alice.identity, host)
	if s.code != 0 || v.Result != "ok" || v.CodeAttempts != 2 || v.HostKey.VerifiedBy != "card" || v.HostKey.Type != "ssh-ed25519" {
		t.Errorf("exit %d, %+v\n%s", s.code, v, s.err)
	}
	if got := v.with("not-tried"); !slices.Equal(got, []string{"wrong-code"}) {
		t.Errorf("not tried: %q", got)
	}
	if strings.Contains(s.out+s.err, cards["alice"].Secret) {
		t.Error("the secret was printed")
	}
	// The third attempt in half a minute is the owner's, by another code than the
	// one that was spent, whichever step that was of.
	backup, err := m.account("alice", cards).Codes.Backup()
	if err != nil {
		t.Fatal(err)
	}
	try := login.Try{User: "alice", Key: alice.key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{backup}}
	if r := (login.Go{}).Login(t.Context(), m.serve(cards["alice"]), try); r.Outcome != login.In {
		t.Errorf("after verify: %v", r)
	}
	// Programs that lock addresses out count lines of the log; fail2ban takes five.
	log := d.Log()
	if n := len(regexp.MustCompile(`(?m)^.*(Failed (password|publickey|keyboard-interactive|none)|Connection (closed|reset) by (authenticating|invalid) user|maximum authentication attempts).*$`).FindAllString(log, -1)); n == 0 || n > 6 {
		t.Errorf("%d lines of failure in the log", n)
	}
	t.Logf("sshd:\n%s", log)
}

// Without anything, by a stranger, and for an account that does not exist.
func TestVerifyWithoutSecrets(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.firstBoot()
	d := m.sshd()
	for _, user := range []string{"alice", "nobody-here", "root"} {
		v, s := m.verifyJSON(user + "@" + d.Addr())
		if s.code != 0 || v.Result != "ok" || v.CodeAttempts != 0 || v.HostKey.VerifiedBy != "" {
			t.Errorf("%s: exit %d, %s\n%s", user, s.code, v.Result, s.err)
		}
		if got, want := v.with("not-tried"), []string{"host-key", "key-alone", "prompt", "key-and-code", "same-code-again", "wrong-code"}; !slices.Equal(got, want) {
			t.Errorf("%s: not tried: %q", user, got)
		}
		if !strings.Contains(s.err, "the host key is not verified") {
			t.Errorf("%s: said %q", user, s.err)
		}
	}
	if m.must("sh", "-c", "grep -c '^\" RATE_LIMIT 3 30$' "+pamStates+"/alice") != "1\n" {
		t.Error("an attempt was counted")
	}
}

// A key without a code: what is asked for is seen and left.
func TestVerifyWithoutACode(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cards := m.firstBoot()
	d := m.sshd()
	lines, err := cards["alice"].KnownHosts(d.Addr())
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(m.dir, "known")
	if err := os.WriteFile(known, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	v, s := m.verifyJSON("-i", m.img.people["alice"].key.File, "--known-hosts", known, "alice@"+d.Addr())
	if s.code != 0 || v.Result != "ok" || v.CodeAttempts != 1 || v.HostKey.VerifiedBy != "known_hosts" {
		t.Errorf("exit %d, %+v\n%s", s.code, v, s.err)
	}
	if got, want := v.with("not-tried"), []string{"key-and-code", "same-code-again", "wrong-code"}; !slices.Equal(got, want) {
		t.Errorf("not tried: %q", got)
	}
}

// A wrong code waits for the rate limit and is refused.
func TestVerifyAWrongCode(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.firstBoot()
	alice := m.img.people["alice"]
	d := m.sshd()
	v, s := m.verifyJSON("-i", alice.key.File, "--card", m.envelope("alice"), "-I", alice.identity, "--wrong-code", d.Addr())
	if s.code != 0 || v.Result != "ok" || v.CodeAttempts != 3 || len(v.with("not-tried")) != 0 || !strings.Contains(s.err, "waiting") {
		t.Errorf("exit %d, %+v\n%s", s.code, v, s.err)
	}
}

// An account at its rate limit refuses before it asks; that is said, and not tried
// again.
func TestVerifyAtTheRateLimit(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	cards := m.firstBoot()
	// A busy machine needs long for four attempts.
	m.must("sed", "-i", "s/RATE_LIMIT 3 30/RATE_LIMIT 3 600/", pamStates+"/alice")
	server := m.serve(cards["alice"])
	a := m.account("alice", cards)
	wrong, err := a.Codes.Wrong()
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		try := login.Try{User: "alice", Key: a.Key, Methods: []string{login.PublicKey, login.KeyboardInteractive}, Answers: []string{wrong}}
		if r := (login.Go{}).Login(t.Context(), server, try); r.Outcome != login.Refused {
			t.Fatal(r)
		}
	}
	alice := m.img.people["alice"]
	v, s := m.verifyJSON("-i", alice.key.File, "--card", m.envelope("alice"), "-I", alice.identity, "--wrong-code", fmt.Sprintf("%s:%d", server.Host, server.Port))
	if got := v.with("wrong"); s.code != 1 || !slices.Equal(got, []string{"prompt"}) || v.CodeAttempts != 1 {
		t.Errorf("exit %d, wrong %q, %d attempts", s.code, got, v.CodeAttempts)
	}
	if !strings.Contains(s.out, "too many attempts") {
		t.Error("the rate limit is not named")
	}
}

// A server that speaks nothing that totpctl does is judged by what it offers.
func TestVerifyWithoutACommonAlgorithm(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	d, err := m.StartSSHD(t.Context(), "-o", "KexAlgorithms=sntrup761x25519-sha512@openssh.com")
	if err != nil {
		t.Fatal(err)
	}
	v, s := m.verifyJSON("alice@" + d.Addr())
	if s.code != 1 || v.Result != "unreachable" || !strings.Contains(v.Error, "sntrup761") || !strings.Contains(s.err, "hint: the rows about what it offers stand") {
		t.Errorf("exit %d, %s, %s\n%s", s.code, v.Result, v.Error, s.err)
	}
	if got, want := v.with("ok"), []string{"kex", "host-key-algorithms", "ciphers", "macs", "strict-kex"}; !slices.Equal(got, want) {
		t.Errorf("ok: %q, want %q", got, want)
	}
}

// Whoever breaks what was baked sees it from outside, in the row it is about.
func TestVerifyShowsHoles(t *testing.T) {
	t.Parallel()
	const conf = "/etc/ssh/sshd_config.d/00-00-totp.conf"
	tests := []struct {
		name, script string
		wrong        []string
	}{
		{"key alone", `sed -i 's/AuthenticationMethods .*/AuthenticationMethods publickey/' ` + conf, []string{"key-alone"}},
		{"passwords", `sed -i 's/AuthenticationMethods .*/AuthenticationMethods publickey,keyboard-interactive password/; s/PasswordAuthentication no/PasswordAuthentication yes/' ` + conf,
			[]string{"nothing", "password", "key-alone"}},
		{"code alone", `sed -i 's/AuthenticationMethods .*/AuthenticationMethods keyboard-interactive/' ` + conf, []string{"nothing", "code-alone", "key-alone"}},
		{"every code", `sed -i 's/requisite pam_google/sufficient pam_google/; /pam_google/a auth required pam_permit.so' /etc/pam.d/sshd`, []string{"same-code-again"}},
		{"the password's line again", `sed -i 's/^auth.*pam_google.*/@include common-auth/' /etc/pam.d/sshd`, []string{"prompt"}},
		{"weak algorithms", `sed -i 's/^Ciphers .*/Ciphers aes256-ctr,aes128-cbc/; s/^MACs .*/MACs hmac-sha2-256,hmac-sha1/' ` + conf, []string{"ciphers", "macs"}},
		{"nobody is enrolled", `rm ` + pamStates + `/*`, []string{"key-and-code"}},
		{"other host keys", `rm /etc/ssh/ssh_host_*; ssh-keygen -A`, []string{"host-key"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.firstBoot()
			m.must("sh", "-euc", tt.script)
			alice := m.img.people["alice"]
			d := m.sshd()
			v, s := m.verifyJSON("-i", alice.key.File, "--card", m.envelope("alice"), "-I", alice.identity, d.Addr())
			if got := v.with("wrong"); s.code != 1 || v.Result != "wrong" || !slices.Equal(got, tt.wrong) {
				t.Errorf("exit %d, %s, wrong %q, want %q\n%s", s.code, v.Result, got, tt.wrong, s.err)
			}
		})
	}
}
