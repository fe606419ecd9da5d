// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// banner is what sshd would show, or "" for nothing.
func (m *machine) banner() string {
	m.Helper()
	conf, err := m.t.ReadFile(target.NoticeConf)
	if err != nil {
		return ""
	}
	file, ok := strings.CutPrefix(strings.TrimSpace(string(conf)), "Banner ")
	if !ok {
		m.Fatalf("sshd is told %q", conf)
	}
	text, err := m.t.ReadFile(file)
	if err != nil {
		return ""
	}
	return string(text)
}

func shown(text string) int { return strings.Count(text, "-----BEGIN AGE ENCRYPTED FILE-----") }

// boot takes what is under /run, and runs the agent.
func (m *machine) boot() {
	m.Helper()
	if err := m.t.RemoveAll(target.RunDir); err != nil {
		m.Fatal(err)
	}
	m.mustRun()
}

func pqRecipient(t testing.TB) string {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id.Recipient().String()
}

// From the first boot to the login: the banner has the envelope as soon as it is
// delivered, has it again after each boot, and not after the login.
func TestBanner(t *testing.T) {
	m := newMachine(t)
	to := pqRecipient(t)
	m.put(target.ImagePolicy, "version: 1\nchannels: [{type: ssh-banner}]\n")
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + to + "]}]\n")
	m.put(target.SSHDConfig, "Include /etc/ssh/sshd_config.d/*.conf\nBanner /etc/issue.net\n")
	m.put("/etc/issue.net", "Keep out.\n")
	m.mustRun()
	if got := m.banner(); got != "Keep out.\n" {
		t.Errorf("before delivery: %q", got)
	}
	m.deliver()
	if got := m.banner(); shown(got) != 1 || !strings.HasPrefix(got, "Keep out.\n") || strings.Contains(got, "alice") {
		t.Errorf("after delivery: %q", got)
	}
	m.boot()
	if got := m.banner(); shown(got) != 1 {
		t.Errorf("after a boot: %q", got)
	}
	m.logIn("alice")
	m.logins()
	if got := m.banner(); got != "Keep out.\n" || m.ready() != 0 {
		t.Errorf("after the login: %q", got)
	}
	m.boot()
	if got := m.banner(); got != "Keep out.\n" {
		t.Errorf("after another boot: %q", got)
	}

	// A reset is shown by the sshd that runs.
	if _, err := Reset(t.Context(), m.t, "alice", nil, m.options()); err != nil {
		t.Fatal(err)
	}
	m.deliver()
	if got := m.banner(); shown(got) != 1 {
		t.Errorf("after a reset: %q", got)
	}
}

// A card that an acknowledged channel is still to take stays in the outbox after
// the login, and leaves the banner.
func TestBannerBesideAcknowledged(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nchannels: [{type: ssh-banner}, {type: virtio}]\n")
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + pqRecipient(t) + "]}]\n")
	m.mustRun()
	m.deliver()
	if got := m.banner(); shown(got) != 1 {
		t.Errorf("after delivery: %q", got)
	}
	m.logIn("alice")
	m.logins()
	if got := m.banner(); shown(got) != 0 || m.ready() != 1 {
		t.Errorf("after the login: %q, %d ready", got, m.ready())
	}
	m.deliver()
	m.boot()
	if got := m.banner(); shown(got) != 0 || m.ready() != 1 {
		t.Errorf("after a boot: %q, %d ready", got, m.ready())
	}
}

// The notice that nobody can log in is part of it.
func TestBannerWithNotice(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nchannels: [{type: ssh-banner}]\n")
	m.layer("version: 1\n")
	m.mustRun()
	if got := m.banner(); !strings.Contains(got, noticePrefix) || !m.t.Exists(target.BannerDir) {
		t.Errorf("notice: %q", got)
	}
	if _, err := Reset(t.Context(), m.t, "alice", []string{pqRecipient(t)}, m.options()); err != nil {
		t.Fatal(err)
	}
	m.deliver()
	if got := m.banner(); strings.Contains(got, noticePrefix) || shown(got) != 1 {
		t.Errorf("after the reset: %q", got)
	}
	// Without the channel there is no place for it.
	m.put(target.ImagePolicy, fileOnly)
	m.mustRun()
	if got := m.banner(); got != "" || m.t.Exists(target.BannerDir) {
		t.Errorf("without the channel: %q", got)
	}
}
