// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
)

// instancePolicy puts the user-data's layer where cloud-init would.
func (m *machine) instancePolicy(text string) {
	m.t.Helper()
	name := m.Path("/var/lib/cloud/instance/totp-instance.yaml")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// Hosts that give their customers root: the instance names a recipient for it.
func TestRootIsEnrolledByTheInstance(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	owner, err := newPerson(m.dir, "owner", true)
	if err != nil {
		t.Fatal(err)
	}
	m.instancePolicy(fmt.Sprintf("version: 1\nusers:\n  - {name: root, recipients: [%s]}\n", owner.recipient))
	m.ok("enroll")
	m.ok("deliver")
	c := m.openAs(owner, "root", m.envelope("root"))
	server := m.serve(c)
	ssh := login.OpenSSH{Dir: m.dir}
	root := m.account("root", nil)
	root.Codes = login.NewCodes(c.Secret, c.BackupCodes)
	r, err := login.Enter(t.Context(), ssh, server, root)
	if err != nil || r.Outcome != login.In || len(r.Prompts) != 1 {
		t.Errorf("key and code: %v, %v, prompts %q", r, err, r.Prompts)
	}
	r = ssh.Login(t.Context(), server, login.Try{User: "root", Key: root.Key, Methods: []string{login.PublicKey}})
	if r.Outcome != login.Unasked || !r.KeyTaken() {
		t.Errorf("key alone: %v", r)
	}
}

// Where the image says so, a card is sealed to the login key of a user for whom
// nobody has named a recipient, and age opens it with that key.
func TestSealedToALoginKey(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	policy := "version: 1\nchannels:\n  - {type: file}\nrecipients_from: [image, vendor, instance, authorized_keys]\n"
	if err := os.WriteFile(m.Path("/etc/totp-agent/image.yaml"), []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	m.ok("enroll")
	m.ok("deliver")
	carol := *m.img.people["carol"]
	carol.identity = carol.key.File
	c := m.openAs(&carol, "carol", m.envelope("carol"))
	if got := m.enters(m.serve(c), c, login.NewCodes(c.Secret, nil)); got != login.In {
		t.Errorf("carol: %v", got)
	}
}

// A layer that asks for what it may not have is refused whole, and said; the
// image's policy holds.
func TestARefusedLayerChangesNothing(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	mallory, err := newPerson(m.dir, "mallory", true)
	if err != nil {
		t.Fatal(err)
	}
	m.instancePolicy(fmt.Sprintf("version: 1\nusers:\n  - {name: carol, recipients: [%s]}\nrecipients_from: [authorized_keys]\n", mallory.recipient))
	cards := m.firstBoot()
	if _, ok := cards["alice"]; len(cards) != 2 || !ok {
		t.Errorf("%d cards, want alice's and bob's", len(cards))
	}
	var st struct {
		RefusedLayers []struct{ Layer, Error string } `json:"refused_layers"`
	}
	m.statusInto(&st)
	if len(st.RefusedLayers) != 1 || st.RefusedLayers[0].Layer != "instance" || st.RefusedLayers[0].Error == "" {
		t.Errorf("refused layers %+v", st.RefusedLayers)
	}
}

// An agent that is killed leaves what the next boot makes whole, whenever that
// was.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	killed := 0
	for delay := time.Millisecond; delay < 40*time.Millisecond; delay += 1500 * time.Microsecond {
		m.must("sh", "-c", newMachineID) // everybody is to be enrolled anew
		cmd := m.Command(t.Context(), "timeout", "-s", "KILL", fmt.Sprintf("%.4f", delay.Seconds()), agentPath, "enroll")
		_ = cmd.Run() // killed or not
		if cmd.ProcessState.ExitCode() != 0 {
			killed++
		}
		// On a busy machine the killed process has its lock for a moment longer.
		for strings.Contains(m.agent("enroll").err, "another totp-agent is at work") {
			time.Sleep(10 * time.Millisecond)
		}
		m.ok("enroll")
		if got := m.whole(); len(got) != 2 {
			t.Fatalf("killed after %v: enrolled %v", delay, got)
		}
	}
	t.Logf("%d runs were killed", killed)
	if killed < 3 {
		t.Errorf("only %d runs were killed; the delays are too long for this test", killed)
	}
	m.ok("deliver")
	for user, c := range m.cards() {
		if got := m.enters(m.serve(c), c, login.NewCodes(c.Secret, nil)); got != login.In {
			t.Errorf("%s: %v", user, got)
		}
	}
}
