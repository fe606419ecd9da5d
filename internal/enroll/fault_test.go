// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// imageRecipient is whom the image's policy names: the card must not go to it where the
// user-data names another recipient.
const imageRecipient = "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg"

func isRead(op string) bool { return op == "open" || op == "lstat" }

// accesses lists the accesses of a run by "op name", each once, in their order.
func (m *machine) accesses(which func(op string) bool, run func() error) (all []string) {
	m.Helper()
	m.t.Fault(func(op, name string) error {
		if a := op + " " + name; which(op) && !strings.HasPrefix(name, target.RunDir) && !slices.Contains(all, a) {
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
func (m *machine) fail(access string, always bool, err error) {
	failed := false
	m.t.Fault(func(op, name string) error {
		if op+" "+name != access || failed && !always {
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
	for _, access := range reads {
		for name, tt := range map[string]struct {
			err    error
			always bool
		}{"EIO once": {syscall.EIO, false}, "EIO": {syscall.EIO, true}, "EMFILE once": {syscall.EMFILE, false}, "EACCES": {syscall.EACCES, true}} {
			if tt.err != syscall.EIO && access != layer {
				continue // the layer stands for the others
			}
			t.Run(access+" "+name, func(t *testing.T) {
				m := boot(t)
				m.fail(access, tt.always, tt.err)
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
				if access == layer && enrolled == tt.always {
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
		for _, access := range reads {
			for _, always := range []bool{true, false} {
				m := boot(t, cache)
				old, _ := m.enrolled("alice")
				m.fail(access, always, syscall.EIO)
				st, err := m.run()
				m.t.Fault(nil)
				if err != nil && !errors.Is(err, syscall.EIO) || len(st.RefusedLayers) > 0 {
					t.Errorf("%s: error %v, refused %v", access, err, st.RefusedLayers)
				}
				m.mustRun()
				if now, c := m.enrolled("alice"); now.Secret != old.Secret || c.Generation != 1 {
					t.Errorf("%s, always %v, cache %v: the secret was replaced\n%s", access, always, cache, m.log.String())
				}
			}
		}
	}
}
