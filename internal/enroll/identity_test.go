// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
)

// What a boot under other circumstances does to an enrolled machine.
func TestIdentity(t *testing.T) {
	const (
		kept    = "kept"
		renewed = "renewed"
		closed  = "closed"
	)
	otherMachine := "ffffffffffffffffffffffffffffff00\n"
	otherUUID := "00112233-4455-6677-8899-aabbccddeeff\n"
	drop := func(m *machine, names ...string) {
		for _, n := range names {
			if err := os.RemoveAll(filepath.Join(m.t.Root(), n)); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := func(m *machine, id string) {
		m.instance(id)
		m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	}
	for name, tt := range map[string]struct {
		before, after func(*machine)
		want          string
	}{
		"reboot":                             {nil, func(*machine) {}, kept},
		"new instance-id":                    {nil, func(m *machine) { again(m, "i-2") }, renewed},
		"new instance-id without recipients": {nil, func(m *machine) { m.instance("i-2") }, closed},
		"machine-id changed, same instance":  {nil, func(m *machine) { m.put(target.MachineID, otherMachine) }, kept},
		"same instance-id on other hardware": {nil, func(m *machine) { m.put(target.DMIProductUUID, otherUUID) }, renewed},
		"DMI UUID in the other byte order": {nil, func(m *machine) {
			m.put(target.DMIProductUUID, "E004253F-894F-D311-9A0C-0305E82C3301\n")
		}, kept},
		"DMI UUID gone": {nil, func(m *machine) { drop(m, target.DMIProductUUID) }, kept},
		"DMI UUID a placeholder from the start": {
			func(m *machine) { m.put(target.DMIProductUUID, "00000000-0000-0000-0000-000000000000\n") },
			func(m *machine) { m.put(target.DMIProductUUID, "ffffffff-ffff-ffff-ffff-ffffffffffff\n") }, kept},
		"datasource not reached": {nil, func(m *machine) { drop(m, target.CloudRunInstanceID) }, kept},
		"DataSourceNone": {nil, func(m *machine) {
			m.instance("iid-datasource-none")
			m.put(target.CloudInstances+"/iid-datasource-none/datasource", "DataSourceNone: DataSourceNone\n")
		}, kept},
		"datasource not reached, other machine-id": {nil, func(m *machine) {
			drop(m, target.CloudRunInstanceID)
			m.put(target.MachineID, otherMachine)
		}, closed},
		"datasource not reached, other DMI UUID": {nil, func(m *machine) {
			drop(m, target.CloudRunInstanceID)
			m.put(target.DMIProductUUID, otherUUID)
		}, closed},
		"datasource not reached, no DMI UUID to compare": {nil, func(m *machine) {
			drop(m, target.CloudRunInstanceID, target.DMIProductUUID)
		}, closed},
		"cloud-init disabled later by the administrator": {nil, func(m *machine) {
			drop(m, target.CloudRunInstanceID)
			m.put(target.CloudDisabled, "")
		}, kept},
		"cloud-init removed later": {nil, func(m *machine) { drop(m, target.CloudInit, target.CloudRunInstanceID) }, kept},
		"cloud-init removed, cloned to other hardware": {nil, func(m *machine) {
			drop(m, target.CloudInit, target.CloudRunInstanceID)
			m.put(target.DMIProductUUID, otherUUID)
		}, closed},
		"without cloud-init: reboot": {
			func(m *machine) { drop(m, target.CloudInit, target.CloudRunInstanceID, target.CloudDataInstanceID) }, func(*machine) {}, kept},
		"without cloud-init: new machine-id": {
			func(m *machine) { drop(m, target.CloudInit, target.CloudRunInstanceID, target.CloudDataInstanceID) },
			func(m *machine) { m.put(target.MachineID, otherMachine) }, renewed},
		"without cloud-init: clone without a new machine-id": {
			func(m *machine) { drop(m, target.CloudInit, target.CloudRunInstanceID, target.CloudDataInstanceID) },
			func(m *machine) { m.put(target.DMIProductUUID, otherUUID) }, renewed},
		"cloud-init's first boot after boots without": {
			func(m *machine) { drop(m, target.CloudInit, target.CloudRunInstanceID, target.CloudDataInstanceID) },
			func(m *machine) { m.put(target.CloudInit, ""); again(m, "i-1") }, renewed},
		"cache lost":                         {nil, func(m *machine) { drop(m, target.Identity) }, kept},
		"cache damaged":                      {nil, func(m *machine) { m.put(target.Identity, "{") }, kept},
		"cache lost, other instance":         {nil, func(m *machine) { drop(m, target.Identity); again(m, "i-2") }, renewed},
		"whole state lost, envelope as well": {nil, func(m *machine) { drop(m, target.StateDir) }, renewed},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			if tt.before != nil {
				tt.before(m)
			}
			m.mustRun()
			old, _ := m.enrolled("alice")
			tt.after(m)
			st := m.mustRun()
			got := kept
			if !m.t.Exists(stateFile("alice")) {
				got = closed
				if st.Notice == "" {
					t.Error("closed without a notice")
				}
			} else if now, _ := m.enrolled("alice"); now.Secret != old.Secret {
				got = renewed
				if found := m.search(old.Secret); len(found) > 0 {
					t.Errorf("the old secret is still in %q", found)
				}
			}
			if got != tt.want {
				t.Errorf("%s, want %s\n%s", got, tt.want, m.log.String())
			}
		})
	}
}

// The cached identity may be copied or restored from another machine, and the state files
// say which machine they are of. What the boot does and what a reset does, live or in a
// rescue system, follows the state files.
func TestCachedIdentityOfAnotherMachine(t *testing.T) {
	other := newMachine(t)
	other.instance("i-9")
	other.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	other.put(target.DMIProductUUID, "00112233-4455-6677-8899-aabbccddeeff\n")
	other.put(target.MachineID, "ffffffffffffffffffffffffffffff00\n")
	other.mustRun()
	foreign, foreignState := other.read(target.Identity), other.read(stateFile("alice"))
	hand, err := otp.State{Secret: "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP", RateLimit: otp.Standard, Window: 3}.Format()
	if err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(m *machine) error{
		"boot":                          func(*machine) error { return nil },
		"boot, datasource not reached":  func(m *machine) error { m.put(target.CloudRunInstanceID, ""); return nil },
		"reset after a boot":            func(m *machine) error { m.mustRun(); _, err := m.reset("alice"); return err },
		"reset":                         func(m *machine) error { live(m.T); _, err := m.reset("alice"); return err },
		"reset in a rescue system":      func(m *machine) error { isLive = (*target.Target).Live; _, err := m.reset("alice"); return err },
		"one boot that cannot read DMI": func(m *machine) error { m.put(target.DMIProductUUID, ""); m.mustRun(); return nil },
		"state file of another as well": func(m *machine) error { m.put(stateFile("carol"), foreignState); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			m.put(stateFile("bob"), string(hand))
			mine := m.read(target.Identity)
			m.put(target.Identity, foreign)
			if err := do(m); err != nil {
				t.Fatal(err)
			}
			m.mustRun()
			now, c := m.enrolled("alice")
			if reset := strings.HasPrefix(name, "reset"); (now.Secret != old.Secret) != reset || reset && c.Generation != 2 {
				t.Errorf("secret replaced: %v, generation %d\n%s", now.Secret != old.Secret, c.Generation, m.log.String())
			}
			if now.Mark.Identity != old.Mark.Identity {
				t.Errorf("the state names %s, want %s", now.Mark.Identity, old.Mark.Identity)
			}
			if bob, err := readState(m.t, "bob"); err != nil || bob.Secret == "" {
				t.Errorf("the secret made by hand: %v", err)
			}
			m.closed("carol")
			if got, _, _ := strings.Cut(m.read(target.Identity), ","); !strings.HasPrefix(mine, got) {
				t.Errorf("the cache is %s, want %s", got, mine)
			}
		})
	}
}

// One boot in which the DMI UUID cannot be read does not loosen the binding.
func TestUUIDIsRemembered(t *testing.T) {
	m := newMachine(t)
	m.mustRun()
	old, _ := m.enrolled("alice")
	m.put(target.DMIProductUUID, "")
	m.mustRun()
	m.put(target.DMIProductUUID, "00112233-4455-6677-8899-aabbccddeeff\n")
	m.mustRun()
	if now, _ := m.enrolled("alice"); now.Secret == old.Secret {
		t.Error("the secret works on other hardware")
	}
}

// A state file that was copied from another machine is not used on this one.
func TestCopiedStateFile(t *testing.T) {
	m, other := newMachine(t), newMachine(t)
	other.instance("i-2")
	other.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
	m.mustRun()
	other.mustRun()
	foreign, _ := other.enrolled("alice")
	m.put(stateFile("alice"), other.read(stateFile("alice")))
	m.mustRun()
	if now, _ := m.enrolled("alice"); now.Secret == foreign.Secret {
		t.Error("the other machine's secret works here")
	}
}

// A machine whose datasource comes back is what it was; another one is not.
func TestHeld(t *testing.T) {
	for name, tt := range map[string]struct {
		back string
		kept bool
	}{"the same instance": {"i-1", true}, "another instance": {"i-2", false}} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.mustRun()
			old, _ := m.enrolled("alice")
			uuid := m.read(target.DMIProductUUID)
			m.put(target.CloudRunInstanceID, "")
			m.put(target.DMIProductUUID, "00112233-4455-6677-8899-aabbccddeeff\n")
			for range 2 { // two boots without an answer
				m.mustRun()
				m.closed("alice")
			}
			m.put(target.DMIProductUUID, uuid)
			m.instance(tt.back)
			m.layer("version: 1\nusers: [{name: alice, recipients: [" + testRecipient + "]}]\n")
			m.mustRun()
			if now, _ := m.enrolled("alice"); (now.Secret == old.Secret) != tt.kept {
				t.Errorf("kept %v, want %v", now.Secret == old.Secret, tt.kept)
			}
		})
	}
}

// The first boot of all, with a datasource that does not answer.
func TestUnknownFromTheStart(t *testing.T) {
	m := newMachine(t)
	m.put(target.CloudRunInstanceID, "")
	m.put(target.ImagePolicy, "version: 1\nissuer: I\nusers: [{name: bob, recipients: ["+testRecipient+"]}]\n")
	st := m.mustRun()
	m.closed("bob")
	if u := user(st, "bob"); u.Why != ErrUnknownID.Error() || st.Notice == "" {
		t.Errorf("status: %+v, notice %q", u, st.Notice)
	}
}

func TestParseIdentity(t *testing.T) {
	for _, s := range []string{"", "a", "a.b.c", "-.-.-", "0123456789abcdef.0123456789abcdef", "0123456789abcdef.x.-"} {
		if _, err := ParseIdentity(s); !errors.Is(err, ErrIdentity) {
			t.Errorf("ParseIdentity(%q): %v, want %v", s, err, ErrIdentity)
		}
	}
	want := Identity{"0123456789abcdef", absent, "fedcba9876543210"}
	if got, err := ParseIdentity(want.String()); err != nil || got != want {
		t.Errorf("ParseIdentity(%q) = %v, %v", want, got, err)
	}
}
