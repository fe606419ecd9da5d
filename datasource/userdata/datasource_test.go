// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package userdata

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclparse"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// Public keys that nobody has the other half of.
const (
	aliceAge = "age12uypdgqjkmy0vmp49l83470qxc84w20za7tj89j7n645lnnp2u4sng8gkr"
	aliceSSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice@laptop"
	alice    = `
		user {
		  name       = "alice"
		  recipients = ["` + aliceAge + `"]
		  ssh_keys   = ["` + aliceSSH + `"]
		  sudo       = true
		}
`
)

// configure decodes a block's body as packer does.
func configure(t *testing.T, body string) (*Datasource, error) {
	t.Helper()
	f, diags := hclparse.NewParser().ParseHCL([]byte(body), "t.pkr.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	d := new(Datasource)
	value, diags := hcldec.Decode(f.Body, d.ConfigSpec(), nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return d, d.Configure(value)
}

func files(t *testing.T) (policyFile, report, closed string) {
	t.Helper()
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.ToSlash(name)
	}
	image := func(from string) string {
		text, err := json.Marshal(map[string]any{"version": 1, "policy": "version: 1\nrecipients_from: [" + from + "]\n"})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	return write("policy.yaml", "version: 1\nissuer: From a file\nusers:\n  - {name: alice, recipients: ["+aliceAge+"]}\n"),
		write("report.json", image("instance")), write("closed.json", image("image"))
}

func TestConfigureErrors(t *testing.T) {
	policyFile, report, closed := files(t)
	type problem struct {
		path string
		rule error
	}
	for _, tt := range []struct {
		name, body string
		want       []problem
	}{
		{"user", alice, nil},
		{"all", alice + `
			issuer            = "Example Hosting"
			escrow_recipients = []
			backup_codes      = 8
			merge             = "#cloud-config\n"
			provider          = "ec2"
			ticket            = true
			ticket_lifetime   = "24h"
			image_report      = "` + report + `"
			channel { type = "console" }`, nil},
		{"policy file with an account", `
			policy_file = "` + policyFile + `"
			user {
			  name     = "alice"
			  ssh_keys = ["` + aliceSSH + `"]
			}`, nil},
		{"nothing", ``, []problem{{"", cloudinit.ErrNothing}}},
		{"names of the block", `
			user {
			  name     = "a/b"
			  ssh_keys = ["x"]
			}
			channel { type = "smoke" }`,
			[]problem{{"user[0].name", policy.ErrUserName}, {"channel[0].type", policy.ErrWord}, {"user[0].ssh_keys[0]", cloudinit.ErrNotSSHKey}}},
		{"all at once", alice + `
			provider        = "mars"
			ticket_lifetime = "a week"
			vendor          = true
			ticket          = true
			image_report    = "nowhere.json"`,
			[]problem{{"provider", ErrProvider}, {"ticket_lifetime", ErrLifetime}, {"ticket", ErrVendor}, {"image_report", ErrFile}}},
		{"block and file", `
			policy_file = "` + policyFile + `"
			issuer      = "x"
			user {
			  name       = "bob"
			  recipients = ["` + aliceAge + `"]
			}`,
			[]problem{{"issuer", ErrTwoPolicies}, {"user[0].recipients", ErrTwoPolicies}, {"user[0].name", ErrNotInPolicy}}},
		{"no file", `policy_file = "nowhere.yaml"`, []problem{{"policy_file", ErrFile}}},
		{"the image would refuse it", alice + `image_report = "` + closed + `"`, []problem{{"user[0].recipients", cloudinit.ErrRefused}}},
		{"no report", alice + `image_report = "` + policyFile + `"`, []problem{{"", cloudinit.ErrReport}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := configure(t, tt.body)
			var got []problem
			if multi := (*packersdk.MultiError)(nil); errors.As(err, &multi) {
				for _, err := range multi.Errors {
					var e *cloudinit.Error
					if !errors.As(err, &e) {
						t.Fatalf("%T: %v", err, err)
					}
					got = append(got, problem{e.Path, e.Rule})
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if !slices.EqualFunc(got, tt.want, func(a, b problem) bool { return a.path == b.path && errors.Is(a.rule, b.rule) }) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestReview: what certainly keeps a user out is an error, and what may do so is in the
// output.
func TestReview(t *testing.T) {
	dir := t.TempDir()
	report := filepath.ToSlash(filepath.Join(dir, "report.json"))
	if err := os.WriteFile(report, []byte(`{"version":1,"openssh":"9.2","policy":"version: 1\nsshd: {algorithms: strict, root_login: deny}\n"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFfgbB1TJtTZBYDZBkSMQcTVumkOw6Sgm0QbyNS8FM94jfwiT2LXkLIfnCNtHaN10sgzCXpTXd/M+iXIpy0y1cM= anna"
	root := "user {\n name = \"root\"\n recipients = [\"" + aliceAge + "\"]\n}\n"
	for _, tt := range []struct {
		name, body string
		rule       error  // of the only error; nil: none
		path       string // of the error
		warnings   []string
	}{
		{"nothing", alice, nil, "", nil},
		{"no way out", alice + `provider = "hetzner"` + "\n" + `image_report = "` + report + `"`, cloudinit.ErrNoWayOut, "user[0]", nil},
		{"a key that the image refuses", strings.Replace(alice, aliceSSH, ecdsa, 1) + `image_report = "` + report + `"`, cloudinit.ErrImageRefusesKey, "user[0].ssh_keys[0]", nil},
		{"root is refused", root + `image_report = "` + report + `"`, cloudinit.ErrRootDenied, "user[0].name", nil},
		{"unknown image", alice + `provider = "hetzner"`, nil, "", []string{`user[0]: "alice": may be unable to log in`}},
		{"two at once", "user { name = \"alice\" }\nprovider = \"hetzner\"\nmerge = \"#cloud-config\\nusers: [alice]\\n\"", nil, "", []string{
			`user[0]: "alice": may be unable to log in`, `merge:2:9: users[0]: "alice": is enrolled but gets no SSH key`, `user "alice": no recipient`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := configure(t, tt.body)
			if tt.rule != nil {
				var multi *packersdk.MultiError
				var e *cloudinit.Error
				if !errors.As(err, &multi) || len(multi.Errors) != 1 || !errors.As(multi.Errors[0], &e) || !errors.Is(e, tt.rule) || e.Path != tt.path {
					t.Errorf("got %v, want %v", err, tt.rule)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			v, err := d.Execute()
			if err != nil {
				t.Fatal(err)
			}
			got := v.GetAttr("warnings").AsValueSlice()
			if len(got) != len(tt.warnings) {
				t.Fatalf("got %v, want %q", got, tt.warnings)
			}
			for i, want := range tt.warnings {
				if !strings.HasPrefix(got[i].AsString(), want) {
					t.Errorf("got %q, want %q", got[i].AsString(), want)
				}
			}
		})
	}
}

func execute(t *testing.T, body string) DatasourceOutput {
	t.Helper()
	d, err := configure(t, body)
	if err != nil {
		t.Fatal(err)
	}
	v, err := d.Execute()
	if err != nil {
		t.Fatal(err)
	}
	return DatasourceOutput{UserData: v.GetAttr("user_data").AsString(), Ticket: v.GetAttr("ticket").AsString(), Token: v.GetAttr("token").AsString()}
}

func TestExecute(t *testing.T) {
	policyFile, report, _ := files(t)
	out := execute(t, alice+`merge = "#cloud-config\nhostname: web # mine\n"`)
	for _, want := range []string{"hostname: web # mine\n", "name: alice", aliceSSH, aliceAge} {
		if !strings.Contains(out.UserData, want) {
			t.Errorf("%q is not in the document", want)
		}
	}
	if out.Ticket != "" || out.Token != "" || strings.Contains(out.UserData, "token") {
		t.Error("there is a ticket that nobody asked for")
	}
	// Braces in a document of the owner's are jinja's, and not Packer's.
	template := "## template: jinja\n#cloud-config\nhostname: {{ v1.region }}-{{timestamp}}\n"
	if out := execute(t, alice+"merge = "+strconv.Quote(template)); !strings.Contains(out.UserData, template) {
		t.Errorf("the document is not there as it was:\n%s", out.UserData)
	}
	if out := execute(t, `policy_file = "`+policyFile+`"`); !strings.Contains(out.UserData, "issuer: From a file") {
		t.Errorf("the policy file was not used:\n%s", out.UserData)
	}

	out = execute(t, alice+`
		ticket       = true
		image_report = "`+report+`"`)
	ticket, err := seal.ParseTicket([]byte(out.Ticket))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`token: (\S+)`).FindStringSubmatch(out.UserData)
	if m == nil {
		t.Fatalf("no token in the document:\n%s", out.UserData)
	}
	token, err := base64.RawURLEncoding.DecodeString(m[1])
	if err != nil || len(token) != 16 {
		t.Fatalf("token of %d bytes: %v", len(token), err)
	}
	if ticket.Users[0].Token != seal.HashToken(card.TokenMAC(token, "alice")) {
		t.Error("document and ticket do not belong together")
	}
	if out.Token != m[1] {
		t.Errorf("the token is said to be %q", out.Token)
	}
	if strings.Contains(out.Ticket, "\n") {
		t.Errorf("the ticket has lines, in which Packer does not know it:\n%s", out.Ticket)
	}
	if strings.Contains(out.Ticket, m[1]) {
		t.Error("the token is in the ticket")
	}
	if masked := packersdk.LogSecretFilter.FilterString(out.UserData); strings.Contains(masked, m[1]) {
		t.Error("the token is not masked in logs")
	}
	if out := execute(t, alice+`ticket = true`); strings.Contains(out.UserData, m[1]) {
		t.Error("the token is there a second time")
	}
}

func TestExecuteErrors(t *testing.T) {
	for body, want := range map[string]error{
		alice + `merge = "#cloud-config\nusers: [alice]\n"`:                                           cloudinit.ErrOtherKeys,
		alice + `merge = "nonsense"`:                                                                  cloudinit.ErrHeader,
		alice + "provider = \"ec2\"\nmerge = \"#!/bin/sh\\n# " + strings.Repeat("x", 17000) + "\\n\"": cloudinit.ErrOverLimit,
		"ticket = true\nuser { name = \"alice\" }":                                                    cloudinit.ErrNoRecipients,
	} {
		d, err := configure(t, body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Execute(); !errors.Is(err, want) {
			t.Errorf("%.80q: got %v, want %v", body, err, want)
		}
	}
}
