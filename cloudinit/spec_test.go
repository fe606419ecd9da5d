// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Public keys that nobody has the other half of.
const (
	aliceAge = "age12uypdgqjkmy0vmp49l83470qxc84w20za7tj89j7n645lnnp2u4sng8gkr"
	deskAge  = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"
	aliceSSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@laptop"
	bobSSH   = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIDB6Hu5ezpM2/YCMnBOM/YbSt9c2DcB+jH8Bbj8+lO8 bob: work"
	token    = "AAECAwQFBgcICQoLDA0ODw"
)

// specs are the documents of the goldens.
var specs = map[string]Spec{
	"owner": {
		Issuer: "Example Hosting", Token: token,
		Users:            []User{{Name: "alice", Recipients: []string{aliceAge}, SSHKeys: []string{aliceSSH}, Sudo: true}},
		EscrowRecipients: []string{deskAge},
	},
	"enrolled-only": {Users: []User{{Name: "debian", Recipients: []string{aliceAge}}}},
	"mixed": {
		Users: []User{
			{Name: "debian", Recipients: []string{aliceAge}},
			{Name: "bob", Recipients: []string{aliceAge}, SSHKeys: []string{bobSSH, aliceSSH}, Shell: "/bin/sh"},
			{Name: "root", Recipients: []string{deskAge}, SSHKeys: []string{`from="10.0.0.0/8" ` + aliceSSH}},
		},
		Enroll: "auto", BackupCodes: 10, RateLimit: "strict", Require: "all",
		Channels: []Channel{{Type: "virtio", Port: "org.totp.enroll.1"}, {Type: "console"}},
	},
	"vendor": {Vendor: true, Issuer: "Example Hosting", Jitter: "1m", Keep: "90d", Channels: []Channel{{Type: "console"}, {
		Type: "http", URL: "https://panel.example/{id}?k=v", Method: "POST", Headers: map[string]string{"X-Token": "t"}, Body: "json", Template: `{"card":"{armored}"}`,
		Success: []int{200}, CAFile: "/etc/ca.pem", ClientCert: "/etc/c.pem", ClientKey: "/etc/k.pem", HMACKey: "0123456789abcdef", Envelopes: "one", User: "alice"}}},
}

func TestDocument(t *testing.T) {
	for name, s := range specs {
		doc, err := s.Document()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		golden(t, name+".yaml", doc)
		checkDocument(t, s, doc)
	}
}

// checkDocument reads a document back as any reader of YAML does.
func checkDocument(t *testing.T, s Spec, doc []byte) {
	t.Helper()
	top := topLevel(t, string(doc))
	files := top["write_files"].([]any)
	last := files[len(files)-1].(map[string]any)
	layer, err := s.Layer()
	if err != nil {
		t.Fatal(err)
	}
	if last["path"] != s.File() || last["permissions"] != "0600" || last["content"] != string(layer) {
		t.Errorf("write_files has %+v, want the layer", last)
	}
	if _, err := policy.Parse(s.layer(), "layer", layer); err != nil {
		t.Errorf("the agent refuses the layer: %v", err)
	}
	for _, u := range s.Users {
		if len(u.SSHKeys) == 0 {
			continue
		}
		var keys []string
		for _, v := range top["users"].([]any) {
			if m, ok := v.(map[string]any); ok && m["name"] == u.Name {
				for _, k := range m["ssh_authorized_keys"].([]any) {
					keys = append(keys, k.(string))
				}
			}
		}
		if d := cmp.Diff(u.SSHKeys, keys); d != "" {
			t.Errorf("keys of %s: %s", u.Name, d)
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (UPDATE_GOLDEN=1 writes it): %s", file, d)
	}
}

// A problem is what is asserted of an error: its field and its rule.
type problem struct {
	path string
	rule error
}

func problems(t *testing.T, err error) []problem {
	t.Helper()
	if err == nil {
		return nil
	}
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("%T: %v, want Errors", err, err)
	}
	var out []problem
	for _, e := range errs {
		out = append(out, problem{e.Path, e.Rule})
	}
	return out
}

func TestSpecErrors(t *testing.T) {
	_, hybrid, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	user := func(change func(*User)) Spec {
		u := User{Name: "alice", Recipients: []string{aliceAge}, SSHKeys: []string{aliceSSH}}
		change(&u)
		return Spec{Users: []User{u}}
	}
	for _, tt := range []struct {
		name string
		spec Spec
		want []problem
	}{
		{"nothing", Spec{}, []problem{{"", ErrNothing}}},
		{"user name", user(func(u *User) { u.Name = "a/b" }), []problem{{"users[0].name", policy.ErrUserName}}},
		{"no key", user(func(u *User) { u.SSHKeys = []string{"hello"} }), []problem{{"users[0].ssh_keys[0]", ErrNotSSHKey}}},
		{"two lines", user(func(u *User) { u.SSHKeys = []string{aliceSSH + "\n" + bobSSH} }), []problem{{"users[0].ssh_keys[0]", ErrNotSSHKey}}},
		{"private key", user(func(u *User) { u.SSHKeys = []string{"-----BEGIN OPENSSH PRIVATE KEY-----"} }), []problem{{"users[0].ssh_keys[0]", ErrPrivateKey}}},
		{"shell", user(func(u *User) { u.Shell = "bash" }), []problem{{"users[0].shell", ErrShell}}},
		{"of an account that is not made", user(func(u *User) { u.SSHKeys, u.Sudo, u.Shell = nil, true, "/bin/sh" }), []problem{{"users[0].sudo", ErrNoAccount}, {"users[0].shell", ErrNoAccount}}},
		{"of root's account", user(func(u *User) { u.Name, u.Sudo = "root", true }), []problem{{"users[0].sudo", ErrNoAccount}}},
		{"one theft", user(func(u *User) { u.Recipients = []string{aliceSSH} }), []problem{{"users[0].recipients[0]", ErrSameKey}}},
		{"one theft, escrow", Spec{Users: []User{{Name: "a", SSHKeys: []string{aliceSSH}}}, EscrowRecipients: []string{aliceSSH}}, []problem{{"escrow_recipients[0]", ErrSameKey}}},
		{"classes", Spec{Users: []User{{Name: "a", Recipients: []string{aliceAge}}}, EscrowRecipients: []string{hybrid}}, []problem{{"escrow_recipients[0]", seal.ErrMixedClasses}}},
		{"token in a vendor's layer", Spec{Vendor: true, Issuer: "x", Token: token}, []problem{{"token", policy.ErrNotInLayer}}},
		{"escrow in a vendor's layer", Spec{Vendor: true, EscrowRecipients: []string{deskAge}}, []problem{{"escrow_recipients", policy.ErrNotInLayer}}},
		{"all at once", Spec{Issuer: "a:b", BackupCodes: 99, Users: []User{{SSHKeys: []string{"x"}}}},
			[]problem{{"issuer", nil}, {"users[0].name", policy.ErrRequired}, {"backup_codes", policy.ErrRange}, {"users[0].ssh_keys[0]", ErrNotSSHKey}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.spec.Document()
			got := problems(t, err)
			if len(got) != len(tt.want) {
				t.Fatalf("got %v (%v), want %v", got, err, tt.want)
			}
			for i, want := range tt.want {
				if got[i].path != want.path || want.rule != nil && !errors.Is(got[i].rule, want.rule) {
					t.Errorf("got %v, want %v", got[i], want)
				}
			}
			if strings.Contains(err.Error(), token) {
				t.Error("the token is in an error")
			}
		})
	}
}

// TestScalar: whatever is written plainly or in quotes is read as the same text.
func TestScalar(t *testing.T) {
	for _, s := range []string{"yes", "No", "~", "0600", "1e3", "a: b", "a #b", "#a", "- a", "é…\u00a0", `"q" \ '`, "/bin/bash", "ALL=(ALL) NOPASSWD:ALL",
		aliceSSH, bobSSH, "a ", " a", "n", "x\ty", "@a", "%a", "!a", "&a", "*a", "a\u2028b", "2001-01-01"} {
		for _, doc := range []string{"k: " + scalar(s), "- " + scalar(s), "[" + quoteJSON(s) + "]"} {
			var v any
			if err := yaml.Unmarshal([]byte(doc), &v); err != nil {
				t.Errorf("%s: %v", doc, err)
				continue
			}
			switch w := v.(type) {
			case map[string]any:
				v = w["k"]
			case []any:
				v = w[0]
			}
			if v != s {
				t.Errorf("%s is read as %#v, want %q", doc, v, s)
			}
		}
	}
}

// TestParse: nothing that a layer may say is lost on the way.
func TestParse(t *testing.T) {
	for _, layer := range []policy.Layer{policy.Instance, policy.Vendor} {
		data, err := os.ReadFile("../internal/policy/testdata/instance.yaml")
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.Parse(policy.Instance, "instance.yaml", data)
		if err != nil {
			t.Fatal(err)
		}
		if layer == policy.Vendor {
			p.EscrowRecipients, p.Token = nil, ""
		}
		p.BackupCodes, p.RateLimit, p.Require, p.Enroll = 5, "strict", "all", "auto"
		want, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse("instance.yaml", want, layer == policy.Vendor)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Layer()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(got)); d != "" {
			t.Errorf("%s: %s", layer, d)
		}
	}
	_, err := Parse("x.yaml", []byte("version: 1\nisuer: x\n"), false)
	var errs Errors
	if !errors.As(err, &errs) || errs[0].File != "x.yaml" || errs[0].Line != 2 || !errors.Is(err, policy.ErrUnknownKey) {
		t.Errorf("got %v", err)
	}
}
