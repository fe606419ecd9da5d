// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

// full says something about every key of an image's policy.
const full = `version: 1
issuer: Example Hosting          # shown in the authenticator app
enroll: listed
users:
  - {name: alice, recipients: [` + age1 + `]}
  - name: bob
    recipients:
      - ` + ssh1 + ` bob@desk
      - ` + age2 + `
  - name: carol
escrow_recipients: [` + age3 + `]
recipients_from: [image, vendor, instance, authorized_keys]
backup_codes: 10
rate_limit: strict
require: all
channels:
  - {type: virtio, port: org.example.0}
  - {type: console}
  - {type: file}
  - {type: http, url: "https://panel.example/{id}", method: POST, body: json, success: [200, 201], ca_file: /etc/ca.pem, user: alice}
jitter: 1m
keep: 90d
sshd:
  algorithms: strict
  exempt_groups: [deploy, backup-jobs]
  exempt_users: [ansible]
  exempt_from: [10.20.0.0/16, "fd00:1::/64"]
  root_login: deny
  tcp_forwarding: allow
time_sync: none
firewall: none
packages: present
cloud_init_module: true
cloud_init_module_listed: true
clean: {build_user: packer}
`

func fullPolicy() *Policy {
	return &Policy{
		Version: 1, Issuer: "Example Hosting", Enroll: "listed",
		Users: []User{
			{Name: "alice", Recipients: []string{age1}},
			{Name: "bob", Recipients: []string{ssh1 + " bob@desk", age2}},
			{Name: "carol"},
		},
		EscrowRecipients: []string{age3},
		RecipientsFrom:   []string{"image", "vendor", "instance", "authorized_keys"},
		BackupCodes:      10, RateLimit: "strict", Require: "all",
		Channels: []Channel{{Type: "virtio", Port: "org.example.0"}, {Type: "console"}, {Type: "file"}, {
			Type: "http", URL: "https://panel.example/{id}", Method: "POST", Body: "json", Success: []int{200, 201}, CAFile: "/etc/ca.pem", User: "alice"}},
		Jitter: "1m", Keep: "90d",
		SSHD: SSHD{
			Algorithms: "strict", ExemptGroups: []string{"deploy", "backup-jobs"}, ExemptUsers: []string{"ansible"},
			ExemptFrom: []string{"10.20.0.0/16", "fd00:1::/64"}, RootLogin: "deny", TCPForwarding: "allow",
		},
		TimeSync: "none", Firewall: "none", Packages: "present", CloudInitModule: true, CloudInitModuleListed: true, Clean: Clean{BuildUser: "packer"},
	}
}

func TestParse(t *testing.T) {
	want := fullPolicy()
	want.File = "image.yaml"
	for name, doc := range map[string]string{
		"plain":           full,
		"windows":         strings.ReplaceAll(full, "\n", "\r\n"),
		"marked":          "---\n" + full + "...\n",
		"no last newline": strings.TrimSuffix(full, "\n"),
	} {
		if p := mustParse(t, Image, doc); !reflect.DeepEqual(p, want) {
			t.Errorf("%s: got %#v", name, *p)
		}
	}
}

// The document as a whole: one error each.
func TestParseDocument(t *testing.T) {
	for _, tt := range []struct {
		name, doc    string
		line, column int
		rule         error
	}{
		{"no bytes", "", 0, 0, ErrEmpty},
		{"blank", "\n\n  \n", 0, 0, ErrEmpty},
		{"comment", "# nothing\n", 0, 0, ErrEmpty},
		{"only a mark", "---\n", 0, 0, ErrEmpty},
		{"null", "~\n", 0, 0, ErrEmpty},
		{"a word", "versi", 1, 1, ErrType},
		{"a list", "- version: 1\n", 1, 1, ErrType},
		{"an error page", "<html>\n", 1, 1, ErrType},
		{"byte order mark", "\ufeffversion: 1\n", 1, 1, ErrBOM},
		{"utf-16", "\xff\xfev\x00e\x00", 1, 1, ErrNotUTF8},
		{"latin-1", "version: 1\nissuer: Müller & S\xf6hne\n", 2, 19, ErrNotUTF8},
		{"nul", "version: 1\nissuer: a\x00b\n", 2, 10, ErrControl},
		{"escape", "version: 1\nissuer: \"\x1b[31m\"\n", 2, 10, ErrControl},
		{"tab", "version: 1\nusers:\n\t- {name: a}\n", 3, 1, ErrTab},
		{"tab after spaces", "version: 1\nusers:\n  \t- {name: a}\n", 3, 3, ErrTab},
		{"too large", "version: 1\n#" + strings.Repeat(" ", maxSize), 0, 0, ErrTooLarge},
		{"two documents", "version: 1\n---\nversion: 1\n", 2, 1, ErrDocuments},
		{"an anchor nobody set", "version: 1\nissuer: *a\n", 0, 0, ErrAnchor},
		{"colon in a value", "version: 1\nissuer: a: b\nenroll: auto\n", 2, 10, ErrSyntax},
		{"wrong indent", "version: 1\nusers:\n  - name: a\n   recipients: []\nenroll: auto\n", 4, 14, ErrSyntax},
		{"open bracket, more to come", "version: 1\nusers: [\nenroll: auto\nrequire: any\n", 4, 13, ErrCut},
		{"bracket that closes nothing", "version: 1\nusers: ]\nenroll: auto\n", 3, 7, ErrSyntax},
		{"cut in a list", "version: 1\nescrow_recipients: [" + age1 + ",\n", 2, 84, ErrCut},
		{"cut in a key", "version: 1\nbackup_co", 2, 10, ErrCut},
		{"cut in a quote", "version: 1\nissuer: \"Exam", 2, 14, ErrCut},
		{"cut in a channel", "version: 1\nchannels:\n  - {type: virtio, po", 3, 22, ErrCut},
		{"deep", strings.Repeat("[", 60000), 1, 10001, ErrSyntax},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(Image, "image.yaml", []byte(tt.doc))
			check(t, err, want{"", tt.line, tt.column, tt.rule})
		})
	}
}

// Keys and types. Every problem is found, in the order of the document, and none
// is told twice.
func TestParseShape(t *testing.T) {
	for _, tt := range []struct {
		name, doc string
		wants     []want
	}{
		{"unknown keys", "version: 1\nisuer: a\nusers:\n  - nmae: alice\nfrobnicate: 1\n", []want{
			{"isuer", 2, 1, ErrUnknownKey}, {"users[0].nmae", 4, 5, ErrUnknownKey}, {"frobnicate", 5, 1, ErrUnknownKey}}},
		{"unknown keys that a terminal acts upon", "version: 1\n\"x\\e[31m\": 1\n\"x\\u202eb\": 1\n\"x\\x9b2J\": 1\nsshd: {\"x\\u2028y\": 1, \"x\\ny\": 1}\n", []want{
			{"…", 2, 1, ErrUnknownKey}, {"…", 3, 1, ErrUnknownKey}, {"…", 4, 1, ErrUnknownKey}, {"sshd.…", 5, 8, ErrUnknownKey}, {"sshd.…", 5, 23, ErrUnknownKey}}},
		{"misspelt beside its like", "version: 1\nisuer: a\nissuer: 'b:c'\n", []want{{"isuer", 2, 1, ErrUnknownKey}, {"issuer", 3, 9, otp.ErrColon}}},
		{"a word for a switch", "version: 1\ncloud_init_module: yes\ncloud_init_module_listed: \"true\"\n", []want{{"cloud_init_module", 2, 20, ErrType}, {"cloud_init_module_listed", 3, 27, ErrType}}},
		{"unknown key of a block", "version: 1\nsshd: {root_logins: deny}\nclean: {build_user: a, user: b}\n", []want{{"sshd.root_logins", 2, 8, ErrUnknownKey}, {"clean.user", 3, 24, ErrUnknownKey}}},
		{"block that is a word", "version: 1\nsshd: strict\n", []want{{"sshd", 2, 7, ErrType}}},
		{"places in a block", "version: 1\nsshd:\n  exempt_from: [10.0.0.1]\n  root_login: maybe\n", []want{{"sshd.exempt_from[0]", 3, 17, ErrCIDR}, {"sshd.root_login", 4, 15, ErrWord}}},
		{"unknown key of no width", "version: 1\n\"issuer\\u200b\": 1\n", []want{{"…", 2, 1, ErrUnknownKey}}},
		{"version misspelt", "verison: 1\n", []want{{"verison", 1, 1, ErrUnknownKey}}},
		{"key given twice", "version: 1\nissuer: a\nissuer: b\n", []want{{"issuer", 3, 1, ErrDuplicateKey}}},
		{"key given twice in a user", "version: 1\nusers:\n  - {name: a, name: b}\n", []want{{"users[0].name", 3, 15, ErrDuplicateKey}}},
		{"number as issuer", "version: 1\nissuer: 365\n", []want{{"issuer", 2, 9, ErrType}}},
		{"date as issuer", "version: 1\nissuer: 2024-01-01\n", []want{{"issuer", 2, 9, ErrType}}},
		{"boolean as word", "version: 1\nrequire: true\n", []want{{"require", 2, 10, ErrType}}},
		{"word of YAML 1.1", "version: 1\nenroll: yes\nrate_limit: on\n", []want{{"enroll", 2, 9, ErrWord}, {"rate_limit", 3, 13, ErrWord}}},
		{"capital word", "version: 1\nrequire: Any\n", []want{{"require", 2, 10, ErrWord}}},
		{"word as number", "version: 1\nbackup_codes: many\n", []want{{"backup_codes", 2, 15, ErrType}}},
		{"quoted number", "version: \"1\"\n", []want{{"version", 1, 10, ErrType}}},
		{"fraction", "version: 1.0\n", []want{{"version", 1, 10, ErrType}}},
		{"octal", "version: 1\nbackup_codes: 010\n", []want{{"backup_codes", 2, 15, ErrType}}},
		{"hexadecimal", "version: 0x1\n", []want{{"version", 1, 10, ErrType}}},
		{"endless number", "version: 1\nbackup_codes: 99999999999999999999\n", []want{{"backup_codes", 2, 15, ErrType}}},
		{"zero", "version: 0\nbackup_codes: 0\n", []want{{"version", 1, 10, ErrVersion}, {"backup_codes", 2, 15, ErrRange}}},
		{"string for a list", "version: 1\nescrow_recipients: " + age1 + "\n", []want{{"escrow_recipients", 2, 20, ErrType}}},
		{"string for a user", "version: 1\nusers: [alice]\n", []want{{"users[0]", 2, 9, ErrType}}},
		{"mapping for a list", "version: 1\nusers: {alice: " + age1 + "}\n", []want{{"users", 2, 8, ErrType}}},
		{"list for a string", "version: 1\nissuer: [a]\n", []want{{"issuer", 2, 9, ErrType}}},
		{"list for a number", "version: [1]\n", []want{{"version", 1, 10, ErrType}}},
		{"nothing", "version: 1\nissuer:\nenroll: \"\"\nusers:\n", []want{
			{"issuer", 2, 8, ErrEmptyValue}, {"enroll", 3, 9, ErrEmptyValue}, {"users", 4, 7, ErrType}}},
		{"number as key", "version: 1\n5: a\n", []want{{"", 2, 1, ErrType}}},
		{"list as key", "version: 1\n? [a]\n: b\n", []want{{"", 2, 3, ErrType}}},
		{"anchor and alias", "version: 1\nescrow_recipients: &a [" + age1 + "]\nusers:\n  - {name: alice, recipients: *a}\n", []want{
			{"escrow_recipients", 2, 20, ErrAnchor}, {"users[0].recipients", 4, 31, ErrAnchor}}},
		{"merge key", "version: 1\nusers:\n  - <<: {name: a}\n    name: b\n", []want{{"users[0]", 3, 5, ErrAnchor}}},
		{"tag", "version: 1\nissuer: !!str 5\nenroll: !word auto\n", []want{{"issuer", 2, 9, ErrTag}, {"enroll", 3, 9, ErrTag}}},
		{"tagged document", "!policy\nversion: 1\n", []want{{"", 1, 1, ErrTag}}},
		{"shape and rule", "version: 1\nissuer: 5\nusers:\n  - {name: -x, recipients: [7, x]}\n", []want{
			{"issuer", 2, 9, ErrType}, {"users[0].name", 4, 12, ErrUserName},
			{"users[0].recipients[0]", 4, 29, ErrType}, {"users[0].recipients[1]", 4, 32, seal.ErrUnknownRecipient}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Parse(Image, "image.yaml", []byte(tt.doc))
			check(t, err, tt.wants...)
		})
	}
}

// A rule that is broken is told with the place of its field.
func TestParsePlaces(t *testing.T) {
	doc := `version: 1
issuer: "a:b"
users:
  - name: a/b
    recipients:
      - ` + age1 + `
      - ` + identity + `
  - {recipients: [` + age2 + `, ` + age2 + `]}
channels:
  - type: http
    url: https://me:pw@panel.example/enroll?id={id}
    headers: {X-Token: hush}
`
	_, err := Parse(Image, "image.yaml", []byte(doc))
	check(t, err,
		want{"issuer", 2, 9, otp.ErrColon},
		want{"users[0].name", 4, 11, ErrUserName},
		want{"users[0].recipients[1]", 7, 9, seal.ErrIdentityAsRecipient},
		want{"users[1].name", 8, 5, ErrRequired},
		want{"users[1].recipients[1]", 8, 83, ErrDuplicate},
		want{"channels[0].url", 11, 10, ErrNoID},
		want{"channels[0].url", 11, 10, ErrCredentialInImage},
		want{"channels[0].url", 11, 10, ErrCredentialInImage},
		want{"channels[0].headers", 12, 14, ErrCredentialInImage},
	)
}

func TestErrorText(t *testing.T) {
	_, err := Parse(Image, "image.yaml", []byte("version: 1\nusers:\n  - name: a/b\n"))
	const want = `image.yaml:3:11: users[0].name: "a/b": ` // what follows may be reworded
	if !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), "; ") {
		t.Errorf("got  %s\nwant %s…; …", err, want)
	}
	if got := (&Policy{Version: 1, Issuer: "a:b"}).Validate(Image).Error(); !strings.HasPrefix(got, `issuer: "a:b": `) {
		t.Errorf("got %s", got)
	}
}

// Nothing that may be a secret is repeated, wherever it was put by mistake.
func TestErrorsKeepSecrets(t *testing.T) {
	const hush, number = "hushhushhush", "7315907315"
	for _, layer := range []Layer{Image, Vendor, Instance} {
		for _, doc := range []string{
			"token: " + hush, "token: [" + hush + "]", "token: {" + hush + ": 1}", "token: " + number, "channels: [{type: http, url: " + number + "}]", "channels: [{type: http, headers: {X-Token: " + number + "}}]",
			"channels: https://u:" + hush + "@h/",
			"channels: [{type: http, url: 'https://u:" + hush + "@h/{id}?k=" + hush + "#" + hush + "'}]",
			"channels: [{type: http, url: 'http://h/" + hush + "?k=" + hush + "'}]",
			"channels: [{type: http, url: ' https://u:" + hush + "@h/'}]",
			"channels: [{type: http, url: '" + hush + "'}]",
			"channels: [{type: http, url: {" + hush + ": 1}}]",
			"channels: [{type: http, url: [" + hush + "]}]",
			"channels: [{type: http, headers: " + hush + "}]",
			"channels: [{type: http, headers: [" + hush + "]}]",
			"channels: [{type: http, headers: {X-Token, " + hush + "}}]",
			"channels: [{type: http, headers: {'X Token': " + hush + "}}]",
			"channels: [{type: http, headers: {" + hush + ": 1, " + hush + ": 2}}]",
			"channels: [{type: http, headers: {X-Token: [" + hush + "]}}]",
			"channels: [{type: http, headers: {X-Token: &" + hush + " " + hush + "}}]",
			"channels: [{type: file, headers: {X-Token: " + hush + "}, url: 'https://" + hush + "@h/?" + hush + "'}]",
			"channels: [{type: carrier, headers: {X-Token: " + hush + "}, url: 'https://" + hush + "@h/?" + hush + "'}]",
			"users: [{name: a, recipients: [AGE-SECRET-KEY-1" + hush + "]}]",
			"users: [{name: a, recipients: [age-secret-key-1" + hush + "]}]",
			"users: [{name: a, recipients: [AGE-SECRET-KEY-PQ-1" + hush + "]}]",
			"users: [{name: a, recipients: AGE-SECRET-KEY-1" + hush + "}]",
			"users: [{name: AGE-SECRET-KEY-1" + hush + "}]",
			"users: [{name: a, AGE-SECRET-KEY-1" + hush + ": b}]",
			"users: [{name: a, recipients: [AGE-PLUGIN-YUBIKEY-1" + hush + "]}]",
			"users: [{name: a, recipients: [\"-----BEGIN OPENSSH PRIVATE KEY-----\\n" + hush + "\"]}]",
			"escrow_recipients: [AGE-SECRET-KEY-1" + hush + "]",
			"issuer: AGE-SECRET-KEY-1" + hush + ":",
			"rate_limit: AGE-SECRET-KEY-1" + hush,
			"issuer: *" + hush,
			"token: " + hush + "\n  " + hush + ": [",
		} {
			_, err := Parse(layer, "f", []byte(doc+"\n"))
			if err == nil {
				t.Errorf("%s: accepted: %s", layer, doc)
			} else if strings.Contains(err.Error(), hush) || strings.Contains(err.Error(), number) {
				t.Errorf("%s: repeats the secret: %v", layer, err)
			}
		}
	}
}

func TestSuggestions(t *testing.T) {
	known := keysOf(reflect.TypeFor[Policy]())
	for s, want := range map[string]string{
		"isuer": "issuer", "ISSUER": "issuer", "backup-codes": "backup_codes", "verison": "version", "user": "users",
		"recipient_from": "recipients_from", "frobnicate": "", "ssh": "sshd", "x": "", strings.Repeat("a", 1000): "",
	} {
		if got := nearest(s, known); got != want {
			t.Errorf("nearest(%.20q) = %q, want %q", s, got, want)
		}
	}
	if d := distance("ab", "ba"); d != 1 {
		t.Errorf("a swap costs %d, want 1", d)
	}
}

// A vendor's or instance's layer outlives the image: what a newer version has
// added is reported, and the rest holds.
func TestParseNewerVersion(t *testing.T) {
	doc := "version: 2\nissuer: New\nfireworks: {at: [midnight]}\nusers:\n  - {name: alice, shoe_size: 43}\n"
	for _, layer := range []Layer{Vendor, Instance} {
		p := mustParse(t, layer, doc)
		if p.Issuer != "New" || len(p.Users) != 1 || p.Users[0].Name != "alice" {
			t.Errorf("%s: the rest does not hold: %#v", layer, *p)
		}
		check(t, p.Notices, want{"fireworks", 3, 1, ErrUnknownKey}, want{"users[0].shoe_size", 5, 19, ErrUnknownKey})
		if n := p.Notices[0]; n.File != layer.File() {
			t.Errorf("notice without file: %v", n)
		}
		_, err := Parse(layer, "", []byte(strings.Replace(doc, "2", "1", 1)))
		check(t, err, want{"fireworks", 3, 1, ErrUnknownKey}, want{"users[0].shoe_size", 5, 19, ErrUnknownKey})
		_, err = Parse(layer, "", []byte(doc+"require: most\n"))
		check(t, err, want{"require", 6, 10, ErrWord})
	}
	_, err := Parse(Image, "", []byte(doc))
	check(t, err, want{"version", 1, 10, ErrVersion}, want{"fireworks", 3, 1, ErrUnknownKey}, want{"users[0].shoe_size", 5, 19, ErrUnknownKey})
}

func FuzzParse(f *testing.F) {
	for _, doc := range []string{
		full, "", "version: 1\n", "version: 2\nnew: 1\n", "version: 1\ntoken: " + token + "\n",
		"version: 1\nusers: [{name: no}, {name: on}, {name: y}]\nissuer: \"1e3\"\n",
		"version: 1\nissuer: '日本 # 語'\nescrow_recipients: [" + hybrid1 + "]\n",
		"a: &x [*x]\n", "{{{", "? ? ?", "- -", "\xff", "---\n---\n", "version: 1\nchannels: [{type: http, url: 'https://h/{id}', headers: {a: b}}]\n",
		firstLine + "version: 1\n" + lastLine + "\n", firstLine + "version: 1\n", "#\n  - a\n...",
	} {
		for i := range 3 {
			f.Add(i, []byte(doc))
		}
	}
	f.Fuzz(func(t *testing.T, n int, data []byte) {
		layer := []Layer{Image, Vendor, Instance}[((n%3)+3)%3]
		p, err := Parse(layer, "f", data)
		if err != nil {
			if p != nil {
				t.Fatal("a policy and an error")
			}
			for _, e := range err.(Errors) {
				if e.Rule == nil || strings.Contains(e.Error(), "\n") {
					t.Fatalf("misshapen error %q", e)
				}
			}
			return
		}
		p.Notices = nil
		text, err := p.Marshal()
		if err != nil {
			t.Skip("blown up by its quotes")
		}
		again, err := Parse(layer, "f", text)
		if err != nil {
			t.Fatalf("what was accepted is not when it is written again: %v\n%s", err, text)
		}
		second, err := again.Marshal()
		if err != nil || !bytes.Equal(text, second) {
			t.Fatalf("not stable: %v\n%s\n%s", err, text, second)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	doc := []byte(full)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(Image, "image.yaml", doc); err != nil {
			b.Fatal(err)
		}
	}
}
