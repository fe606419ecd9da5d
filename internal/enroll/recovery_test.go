// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// A process that is stopped between two steps, as by a power cut, runs this
// test binary again with these variables.
const (
	stopAt   = "TEST_STOP_AT"
	stopRoot = "TEST_STOP_ROOT"
	stopUser = "TEST_STOP_RESET" // reset this user; empty: enroll
	adopting = "TEST_STOP_ADOPT" // with --adopt-machine, to testRecipient
	batches  = "TEST_STOP_BATCH" // size of a batch
	stopped  = 79
)

func TestMain(m *testing.M) {
	if step := os.Getenv(stopAt); step != "" {
		os.Exit(stopThere(step))
	}
	os.Exit(m.Run())
}

func stopThere(step string) int {
	isLive = func(*target.Target) bool { return true }
	if n, err := strconv.Atoi(os.Getenv(batches)); err == nil {
		batchSize = n
	}
	atStep = func(s string) {
		if s == step {
			os.Exit(stopped)
		}
	}
	t, err := target.Open(os.Getenv(stopRoot))
	if err == nil {
		if user := os.Getenv(stopUser); os.Getenv(adopting) != "" {
			_, err = Reset(context.Background(), t, user, []string{testRecipient}, Options{Agent: "test", AdoptMachine: true})
		} else if user != "" {
			_, err = Reset(context.Background(), t, user, nil, Options{Agent: "test"})
		} else {
			_, err = Run(context.Background(), t, Options{Agent: "test"})
		}
	}
	fmt.Fprintln(os.Stderr, "not stopped at", step, err)
	return 1
}

// stop runs the agent in a process of its own and stops it at a step.
func (m *machine) stop(step, reset string) {
	m.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), stopAt+"="+step, stopRoot+"="+m.t.Root(), stopUser+"="+reset)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != stopped {
		m.Fatalf("stopping at %q: %v\n%s", step, err, out)
	}
}

var steps = []string{"forgotten", "staged", "committed", "promoted"}

// Stopped anywhere in the first boot, the next one ends in one whole
// enrollment.
func TestStoppedWhileEnrolling(t *testing.T) {
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t)
			m.stop(step, "")
			committed := m.t.Exists(stateFile("alice"))
			var before string
			if committed {
				s, err := readState(m.t, "alice")
				if err != nil {
					t.Fatal(err)
				}
				before = s.Secret
			}
			m.mustRun()
			now, c := m.enrolled("alice")
			if committed && now.Secret != before {
				t.Error("a committed enrollment was not finished but made anew")
			}
			if want := step == "committed" || step == "promoted"; committed != want {
				t.Errorf("committed %v, want %v", committed, want)
			}
			if c.Generation != 1 {
				t.Errorf("generation %d, want 1", c.Generation)
			}
		})
	}
}

// Of several users, those whose state file has its name keep their enrollment,
// and the others get one.
func TestStoppedBetweenUsers(t *testing.T) {
	m := newMachine(t)
	m.put("/etc/passwd", "root:x:0:0::/root:/bin/bash\nalice:x:1000:1000::/home/alice:/bin/bash\nbob:x:1001:1001::/home/bob:/bin/bash\n")
	m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n  - {name: bob, recipients: [" + testRecipient + "]}\n")
	m.stop("written", "")
	before, err := readState(m.t, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readState(m.t, "bob"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("bob: %v, want none: the run was to stop after alice's", err)
	}
	m.mustRun()
	now, c := m.enrolled("alice")
	if now.Secret != before.Secret || c.Generation != 1 {
		t.Error("alice's committed enrollment was not finished but made anew")
	}
	m.enrolled("bob")
	if staged, ready, err := deliver.OpenOutbox(m.t).IDs(); err != nil || len(staged) != 0 || len(ready) != 2 {
		t.Errorf("staged %v, ready %v, %v; want the two ready", staged, ready, err)
	}
}

// five puts five users on a machine.
func (m *machine) five() (names []string) {
	passwd, layer := "root:x:0:0::/root:/bin/bash\n", "version: 1\nusers:\n"
	for i := range 5 {
		name := fmt.Sprintf("user%d", i)
		names = append(names, name)
		passwd += fmt.Sprintf("%s:x:%d:%d::/home/%s:/bin/bash\n", name, 1000+i, 1000+i, name)
		layer += "  - {name: " + name + ", recipients: [" + testRecipient + "]}\n"
	}
	m.put(target.Passwd, passwd)
	m.layer(layer)
	return names
}

// secrets are those of the users who are enrolled.
func (m *machine) secrets(names []string) map[string]string {
	m.Helper()
	secrets := map[string]string{}
	for _, name := range names {
		if s, err := readState(m.t, name); err == nil {
			secrets[name] = s.Secret
		}
	}
	return secrets
}

// A run that is stopped after its first batch has enrolled that batch, and the next run
// continues with the others.
func TestStoppedBetweenBatches(t *testing.T) {
	for step, want := range map[string]int{"staged": 0, "committed": 2, "promoted": 2} {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t)
			names := m.five()
			t.Setenv(batches, "2")
			m.stop(step, "")
			before := m.secrets(names)
			if len(before) != want {
				t.Errorf("%d users are enrolled, want %d", len(before), want)
			}
			m.continues(names, before)
		})
	}
}

// A run whose time is up commits what it has made.
func TestTimeIsUp(t *testing.T) {
	m := newMachine(t)
	names := m.five()
	live(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	made := 0
	m.t.Fault(func(op, name string) error {
		if op == "mkdir" && strings.HasPrefix(name, target.Staged+"/") {
			if made++; made == 3 {
				cancel()
			}
		}
		return nil
	})
	_, err := Run(ctx, m.t, m.options())
	m.t.Fault(nil)
	before := m.secrets(names)
	if !errors.Is(err, context.Canceled) || len(before) != 3 {
		t.Errorf("error %v, %d users are enrolled; want %v and 3", err, len(before), context.Canceled)
	}
	m.continues(names, before)
}

// continues checks that the next run keeps who is enrolled and enrolls the others, once.
func (m *machine) continues(names []string, before map[string]string) {
	m.Helper()
	m.mustRun()
	after := m.secrets(names)
	for _, name := range names {
		if _, c := m.enrolled(name); c.Generation != 1 {
			m.Errorf("%s: generation %d, want 1", name, c.Generation)
		}
		if before[name] != "" && before[name] != after[name] {
			m.Errorf("%s: the secret was replaced", name)
		}
	}
}

// Stopped anywhere in a clone's first boot, the original's secret is dead
// and stays dead.
func TestStoppedInAClone(t *testing.T) {
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			m.instance("i-2")
			m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
			m.stop(step, "")
			if found := m.search(old.Secret); len(found) > 0 {
				t.Errorf("the original's secret is still in %q", found)
			}
			m.mustRun()
			if now, _ := m.enrolled("alice"); now.Secret == old.Secret {
				t.Error("the original's secret is live")
			}
		})
	}
}

func TestStoppedInAReset(t *testing.T) {
	for _, step := range steps[1:] {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			m.stop(step, "alice")
			m.mustRun()
			now, c := m.enrolled("alice")
			if step == "staged" && (now.Secret != old.Secret || c.Generation != 1) {
				t.Error("a reset that was not committed has changed the enrollment")
			}
			if step != "staged" && (now.Secret == old.Secret || c.Generation != 2 || c.Supersedes != old.Mark.ID) {
				t.Errorf("generation %d supersedes %q, want 2 and %q", c.Generation, c.Supersedes, old.Mark.ID)
			}
		})
	}
}

// Stopped anywhere in an adoption, the old secrets never come back, and the same command
// ends in a whole enrollment.
func TestStoppedInAnAdoption(t *testing.T) {
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			m.lose()
			m.mustRun()
			m.closed("alice")
			t.Setenv(adopting, "1")
			m.stop(step, "alice")
			if found := m.search(old.Secret); len(found) > 0 {
				t.Errorf("the old secret is still in %q", found)
			}
			m.mustRun()
			if s, err := readState(m.t, "alice"); err == nil && s.Secret == old.Secret {
				t.Error("the old secret came back")
			}
			if committed := step == "committed" || step == "promoted"; !committed {
				m.closed("alice")
				o := m.options()
				o.AdoptMachine = true
				if _, err := Reset(t.Context(), m.t, "alice", []string{testRecipient}, o); err != nil {
					t.Fatal(err)
				}
			}
			m.enrolled("alice")
		})
	}
}

// The rows of the recovery, each by the state it starts from.
func TestRecovery(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(m *machine, box *deliver.Outbox, id string) error
		anew   bool
	}{
		"state file's ID is staged: made ready": {func(m *machine, box *deliver.Outbox, id string) error {
			return m.t.Rename(target.Ready+"/"+id, target.Staged+"/"+id)
		}, false},
		"staged without its state file: discarded": {func(m *machine, box *deliver.Outbox, id string) error {
			return box.Stage(deliver.Meta{ID: "aaaaaaaaaaaaaaaaaaaaaaaaaa", User: "alice", Generation: 2}, []byte("sealed"), nil)
		}, false},
		"staged for somebody who is not enrolled: discarded": {func(m *machine, box *deliver.Outbox, id string) error {
			return box.Stage(deliver.Meta{ID: "aaaaaaaaaaaaaaaaaaaaaaaaaa", User: "bob", Generation: 1}, []byte("sealed"), nil)
		}, false},
		"neither staged, ready nor received: anew": {func(m *machine, box *deliver.Outbox, id string) error {
			return box.Withdraw(id)
		}, true},
		"state file removed: anew": {func(m *machine, box *deliver.Outbox, id string) error {
			return m.t.Remove(stateFile("alice"))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			if err := tt.change(m, deliver.OpenOutbox(m.t), old.Mark.ID); err != nil {
				t.Fatal(err)
			}
			m.mustRun()
			if now, _ := m.enrolled("alice"); (now.Secret != old.Secret) != tt.anew {
				t.Errorf("anew %v, want %v", now.Secret != old.Secret, tt.anew)
			}
		})
	}
}

// An envelope that was received may be gone from the outbox.
func TestReceived(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	old, _ := m.enrolled("alice")
	m.put(target.Receipts+"/"+old.Mark.ID+".json",
		`{"id":"`+old.Mark.ID+`","user":"alice","channels":{"virtio":{"state":"delivered","tries":1,"last":"2026-01-02T03:04:05Z"}}}`)
	if err := deliver.OpenOutbox(m.t).Withdraw(old.Mark.ID); err != nil {
		t.Fatal(err)
	}
	m.mustRun()
	now, err := readState(m.t, "alice")
	if err != nil || now.Secret != old.Secret {
		t.Errorf("%v: a received enrollment was made anew", err)
	}
}
