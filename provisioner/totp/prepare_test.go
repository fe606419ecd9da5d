// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclparse"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/agentbin"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Recipients that nobody has the identities of.
const (
	alice = "age12uypdgqjkmy0vmp49l83470qxc84w20za7tj89j7n645lnnp2u4sng8gkr"
	desk  = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z"
)

// block decodes a provisioner block's body as packer does.
func block(t *testing.T, body string) (any, hcl.Diagnostics) {
	t.Helper()
	f, diags := hclparse.NewParser().ParseHCL([]byte(body), "t.pkr.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	value, diags := hcldec.Decode(f.Body, new(Provisioner).ConfigSpec(), nil)
	return value, diags
}

// problem is what is asserted of an error: its field and its rule.
type problem struct {
	path string
	rule error
}

func problems(t *testing.T, err error) []problem {
	t.Helper()
	if err == nil {
		return nil
	}
	var multi *packersdk.MultiError
	if !errors.As(err, &multi) {
		t.Fatalf("%T: %v, want a MultiError", err, err)
	}
	var out []problem
	for _, err := range multi.Errors {
		var e *policy.Error
		if !errors.As(err, &e) {
			t.Errorf("%T: %v, want a *policy.Error", err, err)
			continue
		}
		out = append(out, problem{e.Path, e.Rule})
	}
	return out
}

func TestPrepareErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.ToSlash(name)
	}
	good := write("good.yaml", "version: 1\n")
	bad := write("bad.yaml", "version: 1\nisuer: x\nenroll: yes\n")
	_, pqRecipient, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}

	for _, tt := range []struct {
		name, body string
		agents     agents
		want       []problem
	}{
		{name: "nothing set", body: ``},
		{name: "policy file", body: `policy_file = "` + good + `"`},
		{name: "issuer with a colon", body: `issuer = "a:b"`, want: []problem{{"issuer", nil}}},
		{name: "wrong words", body: `
			enroll = "yes"
			rate_limit = "none"
			require = "some"
			packages = "maybe"
			recipients_from = ["image", "internet"]`,
			want: []problem{{"enroll", policy.ErrWord}, {"recipients_from[1]", policy.ErrWord}, {"rate_limit", policy.ErrWord}, {"require", policy.ErrWord}, {"packages", policy.ErrWord}}},
		{name: "backup codes", body: `backup_codes = 11`, want: []problem{{"backup_codes", policy.ErrRange}}},
		{name: "user names", body: `
			user { name = "a/b" }
			user { name = "-rf" }
			user { name = ".." }
			user { name = "a:b" }
			user { name = "abcdefghijklmnopqrstuvwxyz0123456" }
			user { recipients = [] }`,
			want: []problem{{"user[0].name", policy.ErrUserName}, {"user[1].name", policy.ErrUserName}, {"user[2].name", policy.ErrUserName},
				{"user[3].name", policy.ErrUserName}, {"user[4].name", policy.ErrUserName}, {"user[5].name", policy.ErrRequired}}},
		{name: "recipients", body: `
			user {
			  name = "alice"
			  recipients = ["` + alice + `", "age1nonsense", "AGE-SECRET-KEY-1QQQ"]
			}
			escrow_recipients = ["` + pqRecipient + `"]`,
			want: []problem{{"user[0].recipients[1]", seal.ErrBadRecipient}, {"user[0].recipients[2]", seal.ErrIdentityAsRecipient}, {"escrow_recipients[0]", seal.ErrMixedClasses}}},
		{name: "channels", body: `
			channel { type = "smoke" }
			channel {
			  type = "virtio"
			  port = "a/b"
			}
			channel {
			  type = "file"
			  port = "x"
			}
			channel {}`,
			want: []problem{{"channel[0].type", policy.ErrWord}, {"channel[1].port", policy.ErrPort}, {"channel[2].port", policy.ErrNotOfType}, {"channel[3].type", policy.ErrRequired}}},
		{name: "credentials in the image", body: `
			channel {
			  type    = "http"
			  url     = "https://u:p@panel.example/enroll/x?k=v"
			  headers = { X-Token = "hunter2" }
			}`,
			want: []problem{{"channel[0].url", policy.ErrNoID},
				{"channel[0].headers", policy.ErrCredentialInImage}, {"channel[0].url", policy.ErrCredentialInImage}, {"channel[0].url", policy.ErrCredentialInImage}}},
		{name: "block and file", body: `
			policy_file = "` + good + `"
			issuer = "x"
			user { name = "alice" }`,
			want: []problem{{"issuer", ErrTwoPolicies}, {"user", ErrTwoPolicies}}},
		{name: "no such file", body: `policy_file = "` + good + `.not"`, want: []problem{{"policy_file", nil}}},
		{name: "wrong file", body: `policy_file = "` + bad + `"`, want: []problem{{"isuer", policy.ErrUnknownKey}, {"enroll", nil}}},
		{name: "execute_command without path", body: `execute_command = "sudo sh -c true"`, want: []problem{{"execute_command", ErrNoPath}}},
		{name: "remote_folder relative", body: `remote_folder = "tmp"`, want: []problem{{"remote_folder", ErrRemoteFolder}}},
		{name: "remote_folder with a command", body: `remote_folder = "/tmp;reboot"`, want: []problem{{"remote_folder", ErrRemoteFolder}}},
		{name: "remote_folder with ..", body: `remote_folder = "/tmp/.."`, want: []problem{{"remote_folder", ErrRemoteFolder}}},
		{name: "report is a directory", body: `report = "` + filepath.ToSlash(dir) + `"`, want: []problem{{"report", nil}}},
		{name: "report in no directory", body: `report = "` + filepath.ToSlash(dir) + `/no/report.json"`, want: []problem{{"report", nil}}},
		{name: "built without agents", body: ``, agents: fakeAgents{}, want: []problem{{"plugin", agentbin.ErrNotEmbedded}}},
		{name: "all at once", body: `
			enroll = "yes"
			execute_command = "true"
			remote_folder = "tmp"
			report = "` + filepath.ToSlash(dir) + `"`, agents: fakeAgents{},
			want: []problem{{"enroll", policy.ErrWord}, {"execute_command", ErrNoPath}, {"remote_folder", ErrRemoteFolder}, {"report", nil}, {"plugin", agentbin.ErrNotEmbedded}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			value, diags := block(t, tt.body)
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			p := &Provisioner{agents: bothAgents}
			if tt.agents != nil {
				p.agents = tt.agents
			}
			err := p.Prepare(value)
			got := problems(t, err)
			if !slices.EqualFunc(got, tt.want, func(got, want problem) bool {
				return got.path == want.path && (want.rule == nil || errors.Is(got.rule, want.rule))
			}) {
				t.Errorf("got %v\nwant %v", got, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error gives a header away: %v", err)
			}
		})
	}
}

// What is no key of the block is refused by the HCL decoder, with its line.
func TestBlockRefuses(t *testing.T) {
	for _, body := range []string{
		`token = "AAAAAAAAAAAAAAAAAAAAAA"`,
		`version = 1`,
		`users = []`,
		"sshd {\n exempt = []\n}",
		"sshd {\n}\nsshd {\n}",
		"clean {\n users = []\n}",
		`backup_codes = "many"`,
		`escrow_recipients = { a = 1 }`,
		"user {\n  groups = []\n}",
	} {
		if _, diags := block(t, body); !diags.HasErrors() {
			t.Errorf("%s is accepted", body)
		} else if diags[0].Subject == nil || diags[0].Subject.Start.Line == 0 {
			t.Errorf("%s: no line in %v", body, diags)
		}
	}
}

// TestPrepareSameEitherWay: the block and a file that say the same give the
// guest the same policy, byte for byte.
func TestPrepareSameEitherWay(t *testing.T) {
	value, diags := block(t, `
		issuer            = "Example Hosting"
		enroll            = "listed"
		escrow_recipients = ["`+desk+`"]
		recipients_from   = ["image", "instance", "authorized_keys"]
		backup_codes      = 5
		rate_limit        = "strict"
		require           = "all"
		packages          = "present"
		user {
		  name       = "alice"
		  recipients = ["`+alice+`"]
		}
		user {
		  name = "bob"
		}
		channel {
		  type = "virtio"
		  port = "org.example.0"
		}
		channel {
		  type = "file"
		}`)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	fromBlock := &Provisioner{agents: bothAgents}
	if err := fromBlock.Prepare(value); err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(`# the same, in another order
version: 1
packages: present
users:
  - {name: alice, recipients: ["`+alice+`"]}
  - name: bob
channels:
  - {type: virtio, port: org.example.0}
  - {type: file}
issuer: "Example Hosting"
enroll: listed
escrow_recipients: [`+desk+`]
recipients_from: [image, instance, authorized_keys]
backup_codes: 5
rate_limit: strict
require: all
`), 0o600); err != nil {
		t.Fatal(err)
	}
	fromFile := prepared(t, map[string]any{"policy_file": file})

	if string(fromBlock.policy) != string(fromFile.policy) {
		t.Errorf("the block gives\n%s\nthe file gives\n%s", fromBlock.policy, fromFile.policy)
	}
	back, err := policy.Parse(policy.Image, "", fromBlock.policy)
	if err != nil {
		t.Fatal(err)
	}
	if len(back.Users) != 2 || back.Users[0].Recipients[0] != alice || back.BackupCodes != 5 || back.Channels[0].Port != "org.example.0" {
		t.Errorf("the policy says something else: %s", fromBlock.policy)
	}
}

// TestBlockBecomesPolicy: every key of the policy that the block has arrives in
// it, and none can stand beside a file.
func TestBlockBecomesPolicy(t *testing.T) {
	whole := Config{
		Issuer: "i", Enroll: "e", Users: []User{{"n", []string{"r"}}}, EscrowRecipients: []string{"s"},
		RecipientsFrom: []string{"f"}, BackupCodes: 3, RateLimit: "l", Require: "q", Packages: "p", CloudInitModule: true, CloudInitModuleListed: true,
		SSHD:     &SSHD{"a", []string{"g"}, []string{"u"}, []string{"f"}, "r", "t"},
		TimeSync: "t", Firewall: "w", Clean: &Clean{"b"},
		Channels: []Channel{{"t", "o", "d", "u", "m", map[string]string{"h": "v"}, "b", "T", []int{200}, "c", "C", "k", "K", "e", "U", "R"}},
		Jitter:   "j", Keep: "k",
	}
	want := &policy.Policy{
		Version: policy.Version, Issuer: "i", Enroll: "e", Users: []policy.User{{Name: "n", Recipients: []string{"r"}}},
		EscrowRecipients: []string{"s"}, RecipientsFrom: []string{"f"}, BackupCodes: 3, RateLimit: "l", Require: "q", Packages: "p", CloudInitModule: true, CloudInitModuleListed: true,
		SSHD: policy.SSHD{Algorithms: "a", ExemptGroups: []string{"g"}, ExemptUsers: []string{"u"}, ExemptFrom: []string{"f"},
			RootLogin: "r", TCPForwarding: "t"},
		TimeSync: "t", Firewall: "w", Clean: policy.Clean{BuildUser: "b"},
		Channels: []policy.Channel{{Type: "t", Port: "o", Device: "d", URL: "u", Method: "m", Headers: map[string]string{"h": "v"}, Body: "b", Template: "T", Success: []int{200}, CAFile: "c",
			ClientCert: "C", ClientKey: "k", HMACKey: "K", Envelopes: "e", User: "U", Recipients: "R"}},
		Jitter: "j", Keep: "k",
	}
	if got := whole.policy(); !reflect.DeepEqual(got, want) {
		t.Errorf("the policy lacks something of the block")
	}

	// The fields of the block are those of the policy and the provisioner's own.
	own := []string{"PolicyFile", "ExecuteCommand", "RemoteFolder", "Report", "SkipSelftest", "SkipClean", "AllowUntestedSystem"}
	of := reflect.TypeFor[Config]()
	for i := range of.NumField() {
		f := of.Field(i)
		if f.Anonymous || !f.IsExported() || slices.Contains(own, f.Name) {
			continue
		}
		var one Config
		reflect.ValueOf(&one).Elem().Field(i).Set(reflect.ValueOf(whole).Field(i))
		if keys := one.policyKeys(); !slices.Equal(keys, []string{f.Tag.Get("mapstructure")}) {
			t.Errorf("with %s set the policy's keys are %q", f.Name, keys)
		}
	}
}

// A legacy JSON template reaches Prepare as plain maps.
func TestPrepareJSON(t *testing.T) {
	p := prepared(t, map[string]any{
		"issuer": "x",
		"user":   []any{map[string]any{"name": "alice", "recipients": []any{alice}}},
	})
	if !strings.Contains(string(p.policy), "name: alice") {
		t.Errorf("policy is %s", p.policy)
	}
	for _, raw := range []map[string]any{{"token": "x"}, {"execute_command": "{{ .Path"}} {
		if err := new(Provisioner).Prepare(raw); err == nil {
			t.Errorf("%v is accepted", raw)
		}
	}
}

// Prepare may be called again with another block; nothing of the first stays.
func TestPrepareAgain(t *testing.T) {
	p := prepared(t, map[string]any{"issuer": "first", "report": filepath.Join(t.TempDir(), "r")})
	if err := p.Prepare(map[string]any{}); err != nil {
		t.Fatal(err)
	}
	if p.config.Report != "" || strings.Contains(string(p.policy), "first") {
		t.Errorf("left from the first: %+v, %s", p.config.Report, p.policy)
	}
}
