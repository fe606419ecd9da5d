// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

const (
	bobsLayer  = `{"version": 1, "users": [{"name": "bob", "recipients": ["` + testRecipient + `"]}]}`
	bobsHanded = `{"instance": ` + bobsLayer + `, "instance_id": "i-1"}`
)

func (m *machine) hand(text string) error { return Hand(m.t, strings.NewReader(text)) }

// withoutFile removes what write_files has written.
func (m *machine) withoutFile() {
	if err := m.t.Remove(target.InstancePolicy); err != nil {
		m.Fatal(err)
	}
}

// enrolled are the users of a boot that are.
func enrolled(st *Status) string {
	var names []string
	for _, u := range st.Users {
		if u.Enrolled {
			names = append(names, u.Name)
		}
	}
	return strings.Join(names, " ")
}

func TestHand(t *testing.T) {
	m := newMachine(t)
	m.withoutFile()
	if err := m.hand(bobsHanded); err != nil {
		t.Fatal(err)
	}
	info, err := m.t.Lstat(target.InstanceModule)
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	if got := enrolled(m.mustRun()); got != "bob" {
		t.Errorf("enrolled %q", got)
	}

	// The same again is not written again.
	if err := m.hand(bobsHanded); err != nil {
		t.Fatal(err)
	}
	if again, err := m.t.Lstat(target.InstanceModule); err != nil || !os.SameFile(info, again) {
		t.Errorf("written again: %v", err)
	}

	// What belongs to one instance is not the next one's.
	m.instance("i-2")
	if st := m.mustRun(); enrolled(st) != "" || st.Notice == "" {
		t.Errorf("another instance enrolled %q", enrolled(st))
	}
	if err := m.hand(bobsHanded); !errors.Is(err, ErrInstance) {
		t.Errorf("a handover for another instance: %v", err)
	}

	// A key that is not in user-data any more is gone.
	if err := m.hand(strings.Replace(bobsHanded, "i-1", "i-2", 1)); err != nil {
		t.Fatal(err)
	}
	if err := m.hand(`{"instance_id": "i-2"}`); err != nil || m.t.Exists(target.InstanceModule) {
		t.Errorf("the file is still there: %v", err)
	}
}

// The vendor has its own rights, whatever the way its layer has come.
// TestHandSlash: cloud-init makes other characters of the slashes of an ID where
// it names a directory.
func TestHandSlash(t *testing.T) {
	m := newMachine(t)
	m.instance("iid-local/1")
	if err := m.hand(strings.Replace(bobsHanded, "i-1", "iid-local/1", 1)); err != nil {
		t.Fatal(err)
	}
	if got := enrolled(m.mustRun()); got != "bob" {
		t.Errorf("enrolled %q", got)
	}
	if err := m.hand(strings.Replace(bobsHanded, "i-1", "other/iid-local/1", 1)); !errors.Is(err, ErrInstance) {
		t.Errorf("a handover for another instance: %v", err)
	}
}

func TestHandVendor(t *testing.T) {
	m := newMachine(t)
	if err := m.hand(`{"instance_id": "i-1", "vendor": {"version": 1, "issuer": "Provider"}}`); err != nil {
		t.Fatal(err)
	}
	e, refused, err := LoadPolicy(m.t)
	if err != nil || refused != nil || e.Issuer != "Provider" || !e.Listed("alice") {
		t.Errorf("%v, %v, %v", e, refused, err)
	}
	err = m.hand(`{"instance_id": "i-1", "vendor": {"version": 1, "escrow_recipients": ["` + testRecipient + `"]}}`)
	if !errors.Is(err, policy.ErrNotInLayer) {
		t.Errorf("got %v", err)
	}
	if _, refused, err := LoadPolicy(m.t); err != nil || len(refused) != 1 || refused[0].Layer != "vendor" ||
		!strings.HasPrefix(refused[0].Error, "totp-vendor-module.yaml:4:24: escrow_recipients: ") {
		t.Errorf("%v, %v", refused, err)
	}
}

// A mistake in the key is told at once, and again where everybody looks.
func TestHandMistakes(t *testing.T) {
	for _, tt := range []struct {
		name, layer string
		want        error
		path        string
	}{
		{"no policy", `[1]`, policy.ErrType, ""},
		{"nothing", `null`, policy.ErrEmpty, ""},
		{"no version", `{"issuer": "X"}`, policy.ErrRequired, "version"},
		{"unknown key", `{"version": 1, "user": []}`, policy.ErrUnknownKey, "user"},
		{"a number that PyYAML made", `{"version": 1, "issuer": 12}`, policy.ErrType, "issuer"},
		{"true that PyYAML made of yes", `{"version": 1, "enroll": true}`, policy.ErrType, "enroll"},
		{"not the layer's", `{"version": 1, "packages": "install"}`, policy.ErrNotInLayer, "packages"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.withoutFile()
			err := m.hand(`{"instance_id": "i-1", "instance": ` + tt.layer + `}`)
			var errs policy.Errors
			if !errors.As(err, &errs) || !errors.Is(errs[0], tt.want) || errs[0].Path != tt.path || errs[0].File != "totp-instance-module.yaml" {
				t.Fatalf("got %v", err)
			}
			st := m.mustRun()
			if len(st.RefusedLayers) != 1 || st.RefusedLayers[0].Error != errs.Error() || st.Notice == "" {
				t.Errorf("refused %v, notice %q", st.RefusedLayers, st.Notice)
			}
		})
	}
}

func TestHandWhatIsNone(t *testing.T) {
	m := newMachine(t)
	for _, text := range []string{"", "{", "[]", `{"instance": {}}`, `{"instance_id": 1}`, strings.Repeat(" ", maxHandover+1)} {
		if err := m.hand(text); !errors.Is(err, ErrHandover) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if m.t.Exists(target.InstanceModule) {
		t.Error("something was written")
	}
}

// Two carriers that say the same are one; two that do not are refused by name.
func TestTwoCarriers(t *testing.T) {
	m := newMachine(t) // write_files names alice
	if err := m.hand(strings.Replace(bobsHanded, "bob", "alice", 1)); err != nil {
		t.Fatal(err)
	}
	if st := m.mustRun(); enrolled(st) != "alice" || st.RefusedLayers != nil {
		t.Errorf("enrolled %q, refused %v", enrolled(st), st.RefusedLayers)
	}
	if err := m.hand(bobsHanded); err != nil {
		t.Fatal(err)
	}
	st := m.mustRun()
	if len(st.RefusedLayers) != 1 || st.RefusedLayers[0].Layer != "instance" ||
		!strings.HasPrefix(st.RefusedLayers[0].Error, target.InstancePolicy+" and "+target.InstanceModule+": ") {
		t.Errorf("refused %v", st.RefusedLayers)
	}
}

// What cloud-init's module hands over never stops a run, is in files of mode 0600
// only, and enrolls nobody whom the machine does not know.
func FuzzHand(f *testing.F) {
	f.Add([]byte(bobsHanded))
	f.Add([]byte(`{"instance_id": "i-1", "vendor": {"version": 1}, "instance": [[[]]]}`))
	f.Add([]byte(`{"instance_id": "../../etc", "instance": {"version": 1}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		tt, _ := targettest.New(t)
		targettest.Put(t, tt, target.CloudInstances+"/i-1/x", "", 0o600)
		if err := os.Symlink(target.CloudInstances+"/i-1", filepath.Join(tt.Root(), target.CloudInstance)); err != nil {
			t.Fatal(err)
		}
		err := Hand(tt, bytes.NewReader(in))
		if err != nil && strings.ContainsFunc(err.Error(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
			t.Errorf("the error repeats what a terminal must not get: %q", err)
		}
		entries, err := os.ReadDir(filepath.Join(tt.Root(), target.CloudInstances, "i-1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			fi, err := e.Info()
			if err != nil || fi.Mode() != 0o600 {
				t.Errorf("%s: %v, %v", e.Name(), fi.Mode(), err)
			}
		}
	})
}

// A layer that write_files has left readable is closed before it is used.
func TestCloseLayers(t *testing.T) {
	m := newMachine(t)
	file := filepath.Join(m.t.Root(), target.CloudInstances, "i-1", "totp-instance.yaml")
	for mode, changed := range map[os.FileMode]bool{0o644: true, 0o640: true, 0o604: true, 0o600: false, 0o400: false} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if st := m.mustRun(); len(st.RefusedLayers) > 0 {
			t.Errorf("mode %o: refused: %v", mode, st.RefusedLayers)
		}
		fi, err := os.Stat(file)
		if want := map[bool]os.FileMode{true: 0o600, false: mode}[changed]; err != nil || fi.Mode() != want {
			t.Errorf("mode %o became %v, want %v: %v", mode, fi.Mode(), want, err)
		}
	}
}
