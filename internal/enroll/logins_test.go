// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// logIn does to the state file what the PAM module does at a login.
func (m *machine) logIn(user string) {
	m.Helper()
	text := m.read(stateFile(user))
	used := strings.Replace(text, "\n\" DISALLOW_REUSE\n", "\n\" DISALLOW_REUSE 59666666\n", 1)
	if used == text {
		m.Fatal("the state file is another than this test knows")
	}
	if err := m.t.WriteFile(stateFile(user), []byte(used), 0o400); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) deliver() {
	m.Helper()
	p, _, err := LoadPolicy(m.t)
	if err != nil {
		m.Fatal(err)
	}
	if _, err := deliver.Run(context.Background(), m.t, p, deliver.Options{}); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) logins() {
	m.Helper()
	if err := Logins(context.Background(), m.t, m.options()); err != nil {
		m.Fatal(err)
	}
}

func (m *machine) ready() int {
	m.Helper()
	_, ready, err := deliver.OpenOutbox(m.t).IDs()
	if err != nil {
		m.Fatal(err)
	}
	return len(ready)
}

func (m *machine) cardOf(user string) string {
	m.Helper()
	st, err := ReadStatus(context.Background(), m.t)
	if err != nil {
		m.Fatal(err)
	}
	for _, u := range st.Users {
		if u.Name == user {
			return u.Card
		}
	}
	return "?"
}

const fileOnly = "version: 1\nissuer: Example Hosting\nchannels: [{type: file}]\n"

// An envelope that is offered is unconfirmed until the login, and goes with it.
func TestLogins(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, fileOnly)
	m.mustRun()
	state, _ := m.enrolled("alice")
	if got := m.cardOf("alice"); got != CardWaiting {
		t.Errorf("before the first try: %q", got)
	}
	m.logins()
	m.deliver()
	m.logins()
	if got := m.cardOf("alice"); got != CardOffered || m.ready() != 1 {
		t.Errorf("before the login: %q, %d ready", got, m.ready())
	}
	m.logIn("alice")
	if got := m.cardOf("alice"); got != CardUsed {
		t.Errorf("after the login: %q", got)
	}
	m.logins()
	copyOf := filepath.Join(m.t.Root(), target.Envelopes, "alice."+state.Mark.ID+".age")
	if _, err := os.Stat(copyOf); m.ready() != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after the login: %d ready, the file's copy: %v", m.ready(), err)
	}
	// Nothing of that ends the enrollment: not the next boot either.
	m.mustRun()
	now, err := readState(m.t, "alice")
	if err != nil || now.Secret != state.Secret || m.ready() != 0 || m.cardOf("alice") != CardUsed {
		t.Errorf("after the next boot: %v, %d ready, %q", err, m.ready(), m.cardOf("alice"))
	}
}

// The boot does the same for a login that was not noticed.
func TestLoginsAtBoot(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, fileOnly)
	m.mustRun()
	m.deliver()
	m.logIn("alice")
	m.mustRun()
	if m.ready() != 0 {
		t.Errorf("%d ready", m.ready())
	}
}

// What an acknowledged channel is still to take stays, and one who has logged in
// is enrolled, whatever became of envelope and receipt.
func TestLoginsPending(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nissuer: Example Hosting\nchannels: [{type: virtio}, {type: file}]\n")
	m.mustRun()
	state, _ := m.enrolled("alice")
	m.deliver()
	m.logIn("alice")
	m.logins()
	if got := m.cardOf("alice"); m.ready() != 1 || got != CardWaiting {
		t.Errorf("%d ready, %q", m.ready(), got)
	}
	for _, dir := range []string{target.Ready, target.Receipts} {
		if err := m.t.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	m.mustRun()
	now, err := readState(m.t, "alice")
	if err != nil || now.Secret != state.Secret {
		t.Errorf("one who had logged in got another secret: %v", err)
	}
	if st, err := ReadStatus(context.Background(), m.t); err != nil || !st.Users[0].Enrolled {
		t.Errorf("status %+v, %v", st, err)
	}
}

// The login's job waits for an enrollment that is at work.
func TestLoginsLocked(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, fileOnly)
	m.mustRun()
	m.deliver()
	m.logIn("alice")
	unlock, err := m.t.Lock(target.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Logins(ctx, m.t, m.options()); !errors.Is(err, errAlreadyLocked) || m.ready() != 1 {
		t.Errorf("%v, %d ready", err, m.ready())
	}
	done := make(chan error)
	go func() { done <- Logins(context.Background(), m.t, Options{}) }()
	unlock()
	select {
	case err := <-done:
		if err != nil || m.ready() != 0 {
			t.Errorf("%v, %d ready", err, m.ready())
		}
	case <-time.After(time.Minute):
		t.Fatal("still waiting")
	}
}

// Status shows what each channel did, and nothing of an http channel's secrets.
func TestStatusOfChannels(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n" +
		"channels: [{type: http, url: \"https://localhost:1/secretpath/{id}?secretquery\", headers: {X: secretheader}, hmac_key: secretsecretsecret}]\njitter: 0s\n")
	m.mustRun()
	m.deliver()
	st, err := ReadStatus(context.Background(), m.t)
	if err != nil {
		t.Fatal(err)
	}
	u := st.Users[0]
	for name := range u.Delivery {
		if plain, tag, ok := strings.Cut(name, " #"); ok && len(tag) == 8 {
			u.Delivery[plain] = u.Delivery[name]
		}
	}
	for name, want := range map[string]string{"virtio": "failed", "console": "failed", "file": "offered", "http:localhost:1": "failed"} {
		if d := u.Delivery[name]; d.State != want || d.Tries != 1 || d.Last.IsZero() || (d.Error == "") != (want == "offered") {
			t.Errorf("%s: %+v", name, d)
		}
	}
	if b, err := json.Marshal(st); err != nil || strings.Contains(string(b), "secret") {
		t.Errorf("%s, %v", b, err)
	}
}

// Status says what is wrong with a channel's files before it is tried, and nothing of
// what is in them.
func TestStatusOfFiles(t *testing.T) {
	m := newMachine(t)
	const cert, key = "/etc/totp-client.pem", "/etc/totp-client.key"
	m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n" +
		"channels: [{type: http, url: \"https://localhost:1/secretpath/{id}?secretquery\", client_cert: " + cert + ", client_key: " + key + "}]\njitter: 0s\n")
	m.mustRun()
	m.put(cert, "secret certificate")
	m.put(key, "secret key")
	for mode, want := range map[os.FileMode]string{0o644: "mode 0600", 0o600: "not a certificate and its key"} {
		if err := os.Chmod(filepath.Join(m.t.Root(), key), mode); err != nil {
			t.Fatal(err)
		}
		st, err := ReadStatus(context.Background(), m.t)
		if err != nil || !strings.Contains(st.Error, "channels[3].client_") || !strings.Contains(st.Error, want) || strings.Contains(st.Error, "secret") {
			t.Errorf("mode %v: %q, %v", mode, st.Error, err)
		}
	}
}
