// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

func (m *machine) reset(user string, recipients ...string) (*ResetResult, error) {
	return Reset(context.Background(), m.t, user, recipients, m.options())
}

func TestReset(t *testing.T) {
	for _, where := range []string{"live", "mounted", "chroot"} {
		t.Run(where, func(t *testing.T) {
			m := newMachine(t)
			m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n  - {name: bob, recipients: [" + testRecipient + "]}\n")
			m.mustRun()
			old, _ := m.enrolled("alice")
			bob, _ := m.enrolled("bob")
			if where == "mounted" {
				isLive = (*target.Target).Live
			}
			if where != "live" {
				// Other hardware, and nothing of a boot of this system.
				m.put(target.DMIProductUUID, "00112233-4455-6677-8899-aabbccddeeff\n")
				if err := os.RemoveAll(filepath.Join(m.t.Root(), "run")); err != nil {
					t.Fatal(err)
				}
			}
			if where == "live" {
				m.put(target.PAMTallyDir+"/alice", "tries")
				m.put(target.PAMTallyDir+"/bob", "tries")
			}
			res, err := m.reset("alice")
			if err != nil {
				t.Fatal(err)
			}
			if where == "live" && m.read(target.PAMTallyDir+"/alice")+m.read(target.PAMTallyDir+"/bob") != "tries" {
				t.Error("the tries of alice, and of alice alone, are to be forgotten")
			}
			now, c := m.enrolled("alice")
			if now.Secret == old.Secret || c.Generation != 2 || c.Supersedes != old.Mark.ID || res.ID != c.ID || now.Mark.Identity != old.Mark.Identity {
				t.Errorf("generation %d supersedes %q, state %+v", c.Generation, c.Supersedes, now.Mark)
			}
			if found := m.search(old.Secret); len(found) > 0 {
				t.Errorf("the old secret is still in %q", found)
			}
			if now, _ := m.enrolled("bob"); now.Secret != bob.Secret {
				t.Error("it was not bob's reset")
			}
			if where != "live" {
				m.put(target.CloudRunInstanceID, "i-1\n")
				m.put(target.DMIProductUUID, "3f2504e0-4f89-11d3-9a0c-0305e82c3301\n")
			}
			m.mustRun()
			if after, _ := m.enrolled("alice"); after.Secret != now.Secret {
				t.Error("the next boot did not keep the reset")
			}
		})
	}
}

func TestResetToAnotherRecipient(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	res, err := m.reset("alice", id.Recipient().String())
	if err != nil {
		t.Fatal(err)
	}
	text, err := seal.Open(res.Sealed, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := card.Parse(text); err != nil {
		t.Fatal(err)
	}
	old, _ := age.ParseX25519Identity(testIdentity)
	if _, err := seal.Open(res.Sealed, old); !errors.Is(err, seal.ErrWrongIdentity) {
		t.Errorf("the policy's recipient: %v, want %v", err, seal.ErrWrongIdentity)
	}
}

// Somebody who was never enrolled, for want of a recipient.
func TestResetFromNothing(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\n")
	m.mustRun()
	if !m.t.Exists(target.Notice) {
		t.Fatal("no notice")
	}
	if _, err := m.reset("alice", testRecipient); err != nil {
		t.Fatal(err)
	}
	m.enrolled("alice")
	if m.t.Exists(target.Notice) {
		t.Error("the notice is still there")
	}
	st, err := ReadStatus(context.Background(), m.t)
	if err != nil || !user(st, "alice").Enrolled || st.Notice != "" {
		t.Errorf("status %+v, %v", st, err)
	}
}

// TestResetOfALockedUser: a new secret lets no user in whose account refuses the login, so
// the notice stays, and says that.
func TestResetOfALockedUser(t *testing.T) {
	m := newMachine(t)
	m.layer("version: 1\n")
	m.put(target.SSHD, "")
	if st := m.mustRun(); st.NoticeCode != CodeNoRecipient {
		t.Fatalf("notice %q", st.NoticeCode)
	}
	res, err := m.reset("alice", testRecipient) // her shell does not exist
	if err != nil || res.Login == nil || res.Login.Verdict != LoginImpossible {
		t.Fatalf("%+v, %v", res, err)
	}
	if want := kindOf(CodeCannotLogIn).Text(); m.read(target.Notice) != want {
		t.Errorf("the notice is %q, want %q", m.read(target.Notice), want)
	}
	st, err := ReadStatus(t.Context(), m.t)
	if err != nil || st.NoticeCode != CodeCannotLogIn || st.Notice != m.read(target.Notice) {
		t.Errorf("status: notice %q, %v", st.NoticeCode, err)
	}
	// On a disk mounted elsewhere nothing of this boot's notice is known.
	isLive = (*target.Target).Live
	if res, err := m.reset("alice", testRecipient); err != nil || res.Login != nil {
		t.Errorf("mounted elsewhere: %+v, %v", res, err)
	}
}

// TestResetThatNoChannelCarries: the banner refuses a card for a classic recipient. The
// reset knows that, and status names a command that can succeed.
func TestResetThatNoChannelCarries(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nchannels: [{type: ssh-banner}]\n")
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + pqRecipient(t) + "]}]\n")
	m.mustRun()
	fix := func() string {
		t.Helper()
		m.deliver()
		st, err := ReadStatus(t.Context(), m.t)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range st.Problems {
			if p.Code == CodeDeliveryFailed {
				return p.Fix
			}
		}
		return ""
	}
	if got := fix(); got != "" {
		t.Errorf("before: %q", got)
	}
	res, err := m.reset("alice", testRecipient)
	if err != nil || res.Open != nil || len(res.Refused) != 1 {
		t.Errorf("%+v, %v", res, err)
	}
	if got, want := fix(), "totp-agent reset --recipient age1... alice"; got != want {
		t.Errorf("after: %q, want %q", got, want)
	}
	if res, err = m.reset("alice"); err != nil || !slices.Equal(res.Open, []string{"ssh-banner"}) || res.Refused != nil {
		t.Errorf("%+v, %v", res, err)
	}
	if got := fix(); got != "" {
		t.Errorf("in the end: %q", got)
	}
}

func TestResetRefused(t *testing.T) {
	_, pq, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	key := "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
	for name, tt := range map[string]struct {
		user       string
		recipients []string
		want       error
	}{
		"path as user":        {"../alice", nil, policy.ErrUserName},
		"no account":          {"carol", []string{testRecipient}, ErrNoAccount},
		"no recipient":        {"bob", nil, ErrNoRecipient},
		"private key":         {"alice", []string{testIdentity}, seal.ErrIdentityAsRecipient},
		"no recipient's form": {"alice", []string{"alice@example.com"}, seal.ErrUnknownRecipient},
		"login key":           {"alice", []string{key}, ErrLoginKey},
		"mixed classes":       {"alice", []string{testRecipient, pq}, seal.ErrMixedClasses},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.put("/home/alice/.ssh/authorized_keys", key+"\n")
			chownHome(t, m, "/home/alice/.ssh/authorized_keys")
			m.mustRun()
			old, _ := m.enrolled("alice")
			if _, err := m.reset(tt.user, tt.recipients...); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			if now, _ := m.enrolled("alice"); now.Secret != old.Secret {
				t.Error("the refused reset changed the secret")
			}
		})
	}
}

// A directory on which no disk is mounted stays as it is.
func TestResetOfNoSystem(t *testing.T) {
	tt, _ := targettest.New(t)
	if _, err := Reset(t.Context(), tt, "alice", nil, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if entries, err := tt.ReadDir("/"); len(entries) > 0 || err != nil {
		t.Errorf("left %v, %v", entries, err)
	}
}

// Where /var is a file system of its own, what is below it otherwise is none of
// the machine's.
func TestResetOfHalfASystem(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	isLive = (*target.Target).Live
	if err := os.RemoveAll(filepath.Join(m.t.Root(), target.VarLib)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.reset("alice", testRecipient); !errors.Is(err, fs.ErrNotExist) || m.t.Exists(target.VarLib) {
		t.Errorf("error %v, or something was made", err)
	}
}

// A login that was past its comparison when the new file came renames the old
// one back. The reset waits for it and wins.
func TestResetAgainstALogin(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	old, _ := m.enrolled("alice")
	text := m.read(stateFile("alice"))
	m.put(stateFile("alice")+"~aB3dEf", text)
	done := make(chan error)
	go func() {
		for {
			if s, err := readState(m.t, "alice"); err == nil && s.Mark.ID != old.Mark.ID {
				break
			}
			time.Sleep(time.Millisecond)
		}
		dir := filepath.Join(m.t.Root(), target.PAMStateDir)
		done <- os.Rename(filepath.Join(dir, "alice~aB3dEf"), filepath.Join(dir, "alice"))
	}()
	if _, err := m.reset("alice"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	now, c := m.enrolled("alice")
	if now.Secret == old.Secret || c.Generation != 2 {
		t.Error("the old secret is live")
	}
}

func TestResetOnAnotherMachine(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	m.instance("i-2")
	if _, err := m.reset("alice", testRecipient); !errors.Is(err, errMoved) {
		t.Errorf("error %v, want %v", err, errMoved)
	}
}

func TestResetWithAReadyEnvelope(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	for range 3 {
		if _, err := m.reset("alice"); err != nil {
			t.Fatal(err)
		}
	}
	ready, err := deliver.OpenOutbox(m.t).Ready()
	if err != nil || len(ready) != 1 || ready[0].Generation != 4 {
		t.Errorf("ready: %+v, %v; want generation 4 alone", ready, err)
	}
}

// lose boots the machine without its datasource and on other hardware.
func (m *machine) lose() {
	m.put(target.CloudRunInstanceID, "")
	m.put(target.DMIProductUUID, "00112233-4455-6677-8899-aabbccddeeff\n")
}

// The datasource is gone and the hardware is another one: SSH is closed. An unknown
// identity is not a new one, so a plain reset changes nothing and names the way out. Root
// has to ask for the adoption on a live machine, and in a rescue system the reset is
// enough: the disk is chosen there.
func TestAdoptMachine(t *testing.T) {
	for name, tt := range map[string]struct {
		state   func(m *machine)
		mounted bool
		plain   error // of a reset without --adopt-machine
	}{
		"datasource does not answer": {(*machine).lose, false, ErrUnknownID},
		"cloud-init disabled": {func(m *machine) {
			m.put(target.CloudDisabled, "")
			m.put(target.DMIProductUUID, "00112233-4455-6677-8899-aabbccddeeff\n")
		}, false, ErrUnknownID},
		"no machine-id": {func(m *machine) { m.lose(); m.put(target.MachineID, "uninitialized\n") }, false, ErrUnknownID},
		"state lost": {func(m *machine) {
			m.lose()
			if err := m.t.RemoveAll(target.StateDir); err != nil {
				m.Fatal(err)
			}
			if err := m.t.RemoveAll(target.PAMStateDir); err != nil {
				m.Fatal(err)
			}
		}, false, ErrUnknownID},
		"mounted elsewhere": {(*machine).lose, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n  - {name: bob, recipients: [" + testRecipient + "]}\n")
			m.mustRun()
			old, _ := m.enrolled("alice")
			tt.state(m)
			st := m.mustRun()
			m.closed("alice")
			m.closed("bob")
			if st.NoticeCode != CodeIdentityUnknown || !m.t.Exists(target.Notice) {
				t.Errorf("notice %q", st.NoticeCode)
			}
			if tt.mounted {
				isLive = (*target.Target).Live
			}
			before := m.read(target.Status)
			if tt.plain != nil {
				if _, err := m.reset("alice", testRecipient); !errors.Is(err, tt.plain) {
					t.Fatalf("plain reset: %v, want %v", err, tt.plain)
				}
				m.closed("alice")
				if m.read(target.Status) != before {
					t.Error("the refused reset changed the status")
				}
			}
			o := m.options()
			o.AdoptMachine = tt.plain != nil
			// Refused for another reason, it must leave what was set aside: the datasource may
			// answer again.
			if _, err := Reset(t.Context(), m.t, "carol", []string{testRecipient}, o); !errors.Is(err, ErrNoAccount) {
				t.Fatalf("error %v, want %v", err, ErrNoAccount)
			}
			if name != "state lost" && len(m.search(old.Secret)) == 0 {
				t.Error("a refused adoption removed the secrets")
			}
			if _, err := Reset(t.Context(), m.t, "alice", []string{testRecipient}, o); err != nil {
				t.Fatal(err)
			}
			for range 2 { // boots
				st := m.mustRun()
				now, _ := m.enrolled("alice")
				if now.Secret == old.Secret {
					t.Error("the old secret is live")
				}
				m.closed("bob")
				if st.Notice != "" || st.Unknown {
					t.Errorf("notice %q", st.Notice)
				}
			}
			if found := m.search(old.Secret); len(found) > 0 {
				t.Errorf("the old secret is still in %q", found)
			}
			if m.t.Exists(target.Notice) {
				t.Error("the notice is still there")
			}
		})
	}
}

// An adoption without a user enrolls all users whom the image's policy names.
func TestAdoptMachineForAll(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nissuer: Example\nusers:\n  - {name: alice, recipients: ["+testRecipient+"]}\n  - {name: bob, recipients: ["+testRecipient+"]}\n")
	m.mustRun()
	old, _ := m.enrolled("alice")
	m.lose()
	m.mustRun()
	m.closed("alice")
	o := m.options()
	o.AdoptMachine = true
	for range 2 {
		if st, err := Run(t.Context(), m.t, o); err != nil || st.Notice != "" {
			t.Fatalf("%v, notice %q", err, st.Notice)
		}
	}
	now, c := m.enrolled("alice")
	if m.enrolled("bob"); now.Secret == old.Secret || c.Generation != 1 {
		t.Errorf("generation %d, or the old secret", c.Generation)
	}
	// Its datasource answers again: that is another identity.
	m.instance("i-1")
	m.layer("version: 1\n")
	m.mustRun()
	if s, _ := m.enrolled("alice"); s.Secret == now.Secret {
		t.Error("the adopted machine's secret went to the instance")
	}
}

// A known identity is not given up.
func TestAdoptMachineThatIsKnown(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	old, _ := m.enrolled("alice")
	o := m.options()
	o.AdoptMachine = true
	if _, err := Run(t.Context(), m.t, o); err != nil {
		t.Fatal(err)
	}
	if now, _ := m.enrolled("alice"); now.Secret != old.Secret {
		t.Error("the secret was replaced")
	}
	if res, err := Reset(t.Context(), m.t, "alice", nil, o); err != nil || res.Adopted {
		t.Errorf("%+v, %v", res, err)
	}
	if now, _ := m.enrolled("alice"); now.Mark.Identity != old.Mark.Identity {
		t.Error("the identity was replaced")
	}
}

// A disk that goes to another instance after a reset is a clone all the same.
func TestResetDoesNotMoveWithTheDisk(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	isLive = (*target.Target).Live
	if _, err := m.reset("alice"); err != nil {
		t.Fatal(err)
	}
	reset, _ := m.enrolled("alice")
	m.instance("i-2")
	m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	m.mustRun()
	if now, _ := m.enrolled("alice"); now.Secret == reset.Secret {
		t.Error("the secret went with the disk")
	}
}

// A reset that was interrupted by Ctrl-C after the new file was written is
// carried through.
func TestResetIsNotInterruptedHalfWay(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	m.put(stateFile("alice")+"~aB3dEf", m.read(stateFile("alice")))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Reset(ctx, m.t, "alice", nil, m.options()); err != nil {
		t.Fatal(err)
	}
	m.enrolled("alice")
}

// What cannot carry a second envelope is said, and what is left.
func TestResetOfOne(t *testing.T) {
	m := newMachine(t)
	m.put(target.ImagePolicy, "version: 1\nissuer: Example Hosting\nchannels: [{type: file}]\n")
	m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n" +
		"channels:\n  - {type: http, url: \"https://localhost:1/x\", envelopes: one, user: alice}\n  - {type: http, url: \"https://localhost:2/x\", envelopes: one, user: bob}\n")
	m.mustRun()
	state, _ := m.enrolled("alice")
	res, err := m.reset("alice")
	if err != nil || !slices.Equal(res.Open, []string{"file", "http:localhost:1 for alice"}) || res.Spent != nil {
		t.Errorf("before the first try: %+v, %v", res, err)
	}
	// The one before has been there.
	m.put(target.Receipts+"/"+state.Mark.ID+".json", `{"id":"`+state.Mark.ID+`","user":"alice","channels":{"http:localhost:1 for alice":{"state":"delivered","tries":1,"last":"2026-01-02T03:04:05Z"}}}`)
	res, err = m.reset("alice")
	if err != nil || !slices.Equal(res.Open, []string{"file"}) || !slices.Equal(res.Spent, []string{"http:localhost:1 for alice"}) {
		t.Errorf("after it: %+v, %v", res, err)
	}
}
