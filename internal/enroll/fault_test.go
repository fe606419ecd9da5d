// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/deliver"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// imageRecipient is whom the image's policy names: the card must not go to it where the
// user-data names another recipient.
const imageRecipient = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"

// inMemory puts the machines of a test that makes many of them on a file system without a
// disk, where there is one: each of their syncs waits for the disk otherwise.
func inMemory(t *testing.T) {
	const shm = "/dev/shm"
	if dir, err := os.MkdirTemp(shm, "totp-enroll-"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		t.Setenv("TMPDIR", dir)
	}
}

func isRead(op string) bool { return op == "open" || op == "lstat" }

// accessOf names an access alike on all machines, whatever their random IDs are.
func accessOf(op, name string) string { return op + " " + randomID.ReplaceAllString(name, "ID") }

var randomID = regexp.MustCompile(`[a-z2-7]{26}`)

// accesses lists the accesses of a run by "op name", each once, in their order.
func (m *machine) accesses(which func(op string) bool, run func() error) (all []string) {
	m.Helper()
	m.t.Fault(func(op, name string) error {
		if a := accessOf(op, name); which(op) && !strings.HasPrefix(name, target.RunDir) && !slices.Contains(all, a) {
			all = append(all, a)
		}
		return nil
	})
	defer m.t.Fault(nil)
	if err := run(); err != nil {
		m.Fatal(err)
	}
	return all
}

// fail lets an access fail: its first time, or each time.
func (m *machine) fail(which string, always bool, err error) {
	failed := false
	m.t.Fault(func(op, name string) error {
		if accessOf(op, name) != which || failed && !always {
			return nil
		}
		failed = true
		return err
	})
}

// TestReadFaultInTheFirstBoot fails each read of a first boot. A fault says nothing about
// the file, so it must not be taken for a missing or a refused one: no card is sealed to
// another recipient than the user-data's, the run has failed where it has not enrolled, and
// the next run ends in a whole enrollment.
func TestReadFaultInTheFirstBoot(t *testing.T) {
	inMemory(t)
	boot := func(t *testing.T) *machine {
		m := newMachine(t)
		m.put(target.ImagePolicy, "version: 1\nissuer: Example Hosting\nusers: [{name: alice, recipients: ["+imageRecipient+"]}]\n")
		m.put("/home/alice/.ssh/authorized_keys", hostKeyLine+"\n")
		chownHome(t, m, "/home/alice/.ssh/authorized_keys")
		return m
	}
	m := boot(t)
	reads := m.accesses(isRead, func() error { _, err := m.run(); return err })
	layer := "open " + target.CloudInstances + "/i-1/totp-instance.yaml"
	if !slices.Contains(reads, layer) {
		t.Fatalf("no access %q in %q", layer, reads)
	}
	for _, read := range reads {
		for name, tt := range map[string]struct {
			err    error
			always bool
		}{"EIO once": {syscall.EIO, false}, "EIO": {syscall.EIO, true}, "EMFILE once": {syscall.EMFILE, false}, "EACCES": {syscall.EACCES, true}} {
			if tt.err != syscall.EIO && read != layer {
				continue // the layer stands for the others
			}
			t.Run(read+" "+name, func(t *testing.T) {
				m := boot(t)
				m.fail(read, tt.always, tt.err)
				st, err := m.run()
				m.t.Fault(nil)
				if len(st.RefusedLayers) > 0 {
					t.Errorf("a layer was refused: %+v", st.RefusedLayers)
				}
				if err != nil && !errors.Is(err, tt.err) {
					t.Errorf("error %v, want %v", err, tt.err)
				}
				enrolled := m.t.Exists(stateFile("alice"))
				if !enrolled && err == nil {
					t.Errorf("not enrolled, and no error\n%s", m.log.String())
				}
				if read == layer && enrolled == tt.always {
					t.Errorf("enrolled %v, want %v: a fault that passes is waited for", enrolled, !tt.always)
				}
				if enrolled {
					m.enrolled("alice") // opens the card by the user-data's recipient
				}
				before, _ := readState(m.t, "alice")
				m.mustRun()
				now, c := m.enrolled("alice")
				if enrolled && now.Secret != before.Secret {
					t.Error("the next run made another secret")
				}
				if len(c.HostKeys) != 1 {
					t.Errorf("host keys on the card: %q", c.HostKeys)
				}
			})
		}
	}
}

// TestReadFaultWhenEnrolled fails each read of a later boot, with and without the cache of
// the identity: the enrollment stays as it is.
func TestReadFaultWhenEnrolled(t *testing.T) {
	inMemory(t)
	boot := func(t *testing.T, cache bool) *machine {
		m := newMachine(t)
		m.mustRun()
		if !cache {
			if err := m.t.Remove(target.Identity); err != nil {
				t.Fatal(err)
			}
		}
		return m
	}
	for _, cache := range []bool{true, false} {
		m := boot(t, cache)
		reads := m.accesses(isRead, func() error { _, err := m.run(); return err })
		for _, read := range reads {
			for _, always := range []bool{true, false} {
				m := boot(t, cache)
				old, _ := m.enrolled("alice")
				m.fail(read, always, syscall.EIO)
				st, err := m.run()
				m.t.Fault(nil)
				if err != nil && !errors.Is(err, syscall.EIO) || len(st.RefusedLayers) > 0 {
					t.Errorf("%s: error %v, refused %v", read, err, st.RefusedLayers)
				}
				m.mustRun()
				if now, c := m.enrolled("alice"); now.Secret != old.Secret || c.Generation != 1 {
					t.Errorf("%s, always %v, cache %v: the secret was replaced\n%s", read, always, cache, m.log.String())
				}
			}
		}
	}
}

func isChange(op string) bool { return !isRead(op) }

// failAt lets the nth change of a run fail, from 0, and all after it where it is to be as if
// the process had been killed there. reached reports whether there were so many.
func (m *machine) failAt(n int, killed bool, err error) (reached func() bool) {
	i := -1
	m.t.Fault(func(op, name string) error {
		if isChange(op) {
			i++
		}
		if isChange(op) && (i == n || killed && i > n) {
			return err
		}
		return nil
	})
	return func() bool { return i >= n }
}

// TestFaultInReset fails each change of a reset, or stops at it, on the running machine and
// on a mounted disk. There is a result exactly if the old secret is dead, and it has the
// card of the secret that is live; the next boot keeps what is true, also where it does not
// know which machine it is.
func TestFaultInReset(t *testing.T) {
	inMemory(t)
	for _, where := range []string{"live", "mounted", "mounted, then an unknown identity"} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, killed %v", where, killed), func(t *testing.T) {
				dead, alive := 0, 0
				for n := 0; ; n++ {
					m := newMachine(t)
					m.layer("version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n  - {name: bob, recipients: [" + testRecipient + "]}\n")
					m.mustRun()
					old, _ := m.enrolled("alice")
					var bob string
					if where != "live" {
						isLive = (*target.Target).Live
						res, err := m.reset("bob") // whose way back a second reset keeps
						if err != nil {
							t.Fatal(err)
						}
						bob = res.ID
					}
					reached := m.failAt(n, killed, syscall.ENOSPC)
					res, err := m.reset("alice")
					m.t.Fault(nil)
					if !reached() {
						break
					}
					now, errState := readState(m.t, "alice")
					if errState != nil {
						t.Fatal(errState)
					}
					want := old.Mark.ID
					if replaced := now.Secret != old.Secret; replaced != (res != nil) {
						t.Fatalf("change %d: old secret dead %v, result %v, error %v", n, replaced, res, err)
					}
					if res == nil {
						alive++
						if !target.IsDiskFault(err) {
							t.Errorf("change %d: error %v", n, err)
						}
					} else {
						dead++
						want = res.ID
						if now.Mark.ID != want || m.open(res.Sealed).Secret != now.Secret {
							t.Fatalf("change %d: the result's card is not that of the live secret", n)
						}
						if err == nil && !res.Ready {
							t.Errorf("change %d: the envelope is not ready, and there is no error", n)
						}
					}
					if strings.Contains(where, "unknown") {
						m.lose()
						m.put(target.MachineID, "ffffffffffffffffffffffffffffff00\n")
					}
					m.mustRun()
					if strings.Contains(where, "unknown") {
						if b, err := readState(m.t, "bob"); err != nil || b.Mark.ID != bob {
							t.Fatalf("change %d: bob's reset before is lost: %v", n, err)
						}
						if res == nil {
							m.closed("alice")
							continue
						}
					}
					if now, _ := m.enrolled("alice"); now.Mark.ID != want {
						t.Errorf("change %d: enrollment %s, want %s", n, now.Mark.ID, want)
					}
				}
				if dead == 0 || alive == 0 {
					t.Errorf("%d points after the commit, %d before it", dead, alive)
				}
			})
		}
	}
}

// TestFaultInRun does the same with the boot of an enrolled machine, of a clone, and of one
// with a replaced account, with users in several batches.
func TestFaultInRun(t *testing.T) {
	inMemory(t)
	restore := batchSize
	t.Cleanup(func() { batchSize = restore })
	batchSize = 1
	const layer = "version: 1\nusers:\n  - {name: alice, recipients: [" + testRecipient + "]}\n  - {name: bob, recipients: [" + testRecipient + "]}\n"
	for name, change := range map[string]func(m *machine){
		"first boot": nil,
		"clone":      func(m *machine) { m.instance("i-2"); m.layer(layer) },
		"replaced account": func(m *machine) {
			m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash")
		},
		"identity.json of another machine": func(m *machine) {
			m.put(target.Identity, `{"identity":"a0123456789abcde.0123456789abcdef.0123456789abcdef"}`)
		},
	} {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, killed %v", name, killed), func(t *testing.T) {
				for n := 0; ; n++ {
					m := newMachine(t)
					m.layer(layer)
					old := map[string]otp.State{}
					if change != nil {
						m.mustRun()
						old["alice"], _ = m.enrolled("alice")
						old["bob"], _ = m.enrolled("bob")
						change(m)
					}
					reached := m.failAt(n, killed, syscall.EIO)
					_, err := m.run()
					m.t.Fault(nil)
					if !reached() {
						break
					}
					between := map[string]otp.State{}
					for _, user := range []string{"alice", "bob"} {
						if s, err := readState(m.t, user); err == nil {
							between[user] = s
						}
					}
					m.mustRun()
					for _, user := range []string{"alice", "bob"} {
						now, _ := m.enrolled(user)
						was, ok := between[user]
						if ok && was.Secret != old[user].Secret && now.Secret != was.Secret {
							t.Errorf("change %d, %v: %s got a third secret", n, err, user)
						}
						kept := name == "replaced account" && user == "bob" || strings.HasPrefix(name, "identity.json")
						if got := now.Secret == old[user].Secret; got != kept {
							t.Errorf("change %d, %v: %s has the old secret: %v, want %v", n, err, user, got, kept)
						}
					}
				}
			})
		}
	}
}

// login plays a login that is past the module's comparison: as soon as the state file is
// touched, it renames its temporary file over it.
func (m *machine) login(user string) (done func() bool) {
	m.Helper()
	temp := stateFile(user) + "~aB3dEf"
	m.put(temp, m.read(stateFile(user)))
	dir := m.t.Root()
	touched, renamed := false, false
	m.t.Fault(func(op, name string) error {
		if touched && !renamed {
			if err := os.Rename(filepath.Join(dir, temp), filepath.Join(dir, stateFile(user))); err == nil {
				renamed = true
			}
		}
		touched = touched || (op == "remove" || op == "rename") && strings.HasPrefix(name, stateFile(user))
		return nil
	})
	return func() bool { m.t.Fault(nil); return renamed }
}

// TestLoginInFlight: whatever takes a state file away or puts another in its place outlasts
// a login that would put the old one back.
func TestLoginInFlight(t *testing.T) {
	const layer = "version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n"
	for name, tt := range map[string]struct {
		change func(m *machine, id string)
		closed bool
	}{
		"clone":                     {func(m *machine, _ string) { m.instance("i-2"); m.layer(layer) }, false},
		"clone without a recipient": {func(m *machine, _ string) { m.instance("i-2") }, true},
		"state file of another machine": {func(m *machine, _ string) {
			s, err := readState(m.t, "alice")
			if err != nil {
				m.Fatal(err)
			}
			s.Mark.Identity = "a0123456789abcde.0123456789abcdef.0123456789abcdef"
			b, err := s.Format()
			if err != nil {
				m.Fatal(err)
			}
			m.put(stateFile("alice"), string(b))
			m.layer("version: 1\n")
		}, true},
		"account gone":     {func(m *machine, _ string) { m.setAccount("") }, true},
		"account replaced": {func(m *machine, _ string) { m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash") }, false},
		"account replaced, not enrolled": {func(m *machine, _ string) {
			m.layer("version: 1\n")
			m.setAccount("alice:x:1005:1005::/home/alice:/bin/bash")
		}, true},
		"card lost": {func(m *machine, id string) {
			if err := deliver.OpenOutbox(m.t).Withdraw(id); err != nil {
				m.Fatal(err)
			}
		}, false},
		"identity unknown": {func(m *machine, _ string) { m.lose() }, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			tt.change(m, old.Mark.ID)
			done := m.login("alice")
			_, err := m.run()
			if tried := done(); err != nil || !tried {
				t.Fatalf("error %v; the login was tried: %v\n%s", err, tried, m.log.String())
			}
			if tt.closed {
				m.closed("alice")
				return
			}
			if now, _ := m.enrolled("alice"); now.Secret == old.Secret {
				t.Error("the old secret is live")
			}
		})
	}
}
