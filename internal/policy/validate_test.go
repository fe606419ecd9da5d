// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/otp"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

func broken(path string, rule error) want { return want{path: path, rule: rule} }

func users(recipients ...string) []User {
	return []User{{Name: "alice", Recipients: recipients}}
}

func TestValidate(t *testing.T) {
	long := strings.Repeat("a", 33)
	http := Channel{Type: "http", URL: "https://panel.example/enroll/{id}"}
	with := func(f func(*Channel)) []Channel {
		c := http
		f(&c)
		return []Channel{c}
	}
	channels := tested{}
	defer channels.complete(t)
	for _, tt := range []struct {
		name  string
		layer Layer
		p     Policy // of version 1
		wants []want
	}{
		{"least", Image, Policy{}, nil},
		{"full", Image, *fullPolicy(), nil},

		{"issuer with a colon", Image, Policy{Issuer: "a:b"}, []want{broken("issuer", otp.ErrColon)}},
		{"issuer with a control character", Image, Policy{Issuer: "a\nb"}, []want{broken("issuer", otp.ErrUnprintable)}},
		{"issuer too long", Image, Policy{Issuer: strings.Repeat("a", 65)}, []want{broken("issuer", otp.ErrTooLong)}},
		{"unknown words", Image, Policy{Enroll: "all", RateLimit: "none", Require: "yes", Packages: "skip"}, []want{
			broken("enroll", ErrWord), broken("rate_limit", ErrWord), broken("require", ErrWord), broken("packages", ErrWord)}},
		{"backup codes", Image, Policy{BackupCodes: 11}, []want{broken("backup_codes", ErrRange)}},
		{"backup codes below zero", Image, Policy{BackupCodes: -1}, []want{broken("backup_codes", ErrRange)}},
		{"most backup codes", Image, Policy{BackupCodes: 10}, nil},

		{"user names", Image, Policy{Users: []User{{Name: "a/b"}, {Name: ".."}, {Name: "a..b"}, {Name: "a:b"}, {Name: "-a"}, {Name: long}, {Name: "Alice"}, {Name: ""}}}, []want{
			broken("users[0].name", ErrUserName), broken("users[1].name", ErrUserName), broken("users[2].name", ErrUserName), broken("users[3].name", ErrUserName),
			broken("users[4].name", ErrUserName), broken("users[5].name", ErrUserName), broken("users[6].name", ErrUserName), broken("users[7].name", ErrRequired)}},
		{"user twice", Image, Policy{Users: []User{{Name: "a"}, {Name: "b"}, {Name: "a"}}}, []want{broken("users[2].name", ErrDuplicate)}},

		{"recipients of no kind", Image, Policy{Users: users("alice@example.com", "", age1+"x", age1[:60], plugin, ecdsa, identity)}, []want{
			broken("users[0].recipients[0]", seal.ErrUnknownRecipient), broken("users[0].recipients[1]", seal.ErrUnknownRecipient),
			broken("users[0].recipients[2]", seal.ErrBadRecipient), broken("users[0].recipients[3]", seal.ErrBadRecipient),
			broken("users[0].recipients[4]", seal.ErrPlugin), broken("users[0].recipients[5]", seal.ErrUnsupportedSSH),
			broken("users[0].recipients[6]", seal.ErrIdentityAsRecipient)}},
		{"recipient with a newline", Image, Policy{EscrowRecipients: []string{age1 + "\n"}}, []want{broken("escrow_recipients[0]", seal.ErrBadRecipient)}},
		{"recipient twice", Image, Policy{Users: users(age1, ssh1+" one", age1, ssh1+" two")}, []want{
			broken("users[0].recipients[2]", ErrDuplicate), broken("users[0].recipients[3]", ErrDuplicate)}},
		{"recipient of two users and escrow", Image, Policy{Users: []User{{"a", []string{age1}}, {"b", []string{age1}}}, EscrowRecipients: []string{age1}}, nil},
		{"classes mixed in a user", Image, Policy{Users: users(age1, hybrid1)}, []want{broken("users[0].recipients[1]", seal.ErrMixedClasses)}},
		{"classes mixed over users", Image, Policy{Users: []User{{"a", []string{hybrid1}}, {"b", []string{hybrid2, age1}}}}, []want{broken("users[1].recipients[1]", seal.ErrMixedClasses)}},
		{"classes mixed with escrow", Image, Policy{Users: users(hybrid1), EscrowRecipients: []string{hybrid2, age1}}, []want{broken("escrow_recipients[1]", seal.ErrMixedClasses)}},
		{"all post-quantum", Image, Policy{Users: users(hybrid1), EscrowRecipients: []string{hybrid2}}, nil},
		{"post-quantum and login keys", Image, Policy{EscrowRecipients: []string{hybrid1}, RecipientsFrom: []string{"instance", "authorized_keys"}}, []want{broken("recipients_from[1]", seal.ErrMixedClasses)}},
		{"classic and login keys", Image, Policy{EscrowRecipients: []string{age1}, RecipientsFrom: []string{"authorized_keys"}}, nil},

		{"recipients from", Image, Policy{RecipientsFrom: []string{"image", "cloud", "image"}}, []want{broken("recipients_from[1]", ErrWord), broken("recipients_from[2]", ErrDuplicate)}},
		{"recipients from, misspelt", Image, Policy{RecipientsFrom: []string{"images"}, Users: users(age1)}, []want{broken("recipients_from[0]", ErrWord)}},
		{"recipients from nowhere", Image, Policy{RecipientsFrom: []string{}}, []want{broken("recipients_from", ErrEmptyValue)}},
		{"recipients of an image that may have none", Image, Policy{RecipientsFrom: []string{"instance"}, Users: []User{{Name: "a"}, {"b", []string{age1}}}}, []want{broken("users[1].recipients", ErrRecipientsFrom)}},
		{"escrow of an image that may have none", Image, Policy{RecipientsFrom: []string{"instance"}, EscrowRecipients: []string{age1}}, nil},

		{"no channels", Image, Policy{Channels: []Channel{}}, []want{broken("channels", ErrEmptyValue)}},
		{"channel types", Image, Policy{Channels: []Channel{{}, {Type: "Virtio"}, {Type: "smoke"}}}, []want{
			broken("channels[0].type", ErrRequired), broken("channels[1].type", ErrWord), broken("channels[2].type", ErrWord)}},
		{"channel twice", Image, Policy{Channels: []Channel{{Type: "file"}, {Type: "virtio"}, {Type: "file"}, {Type: "virtio", Port: DefaultPort}}}, []want{
			broken("channels[2]", ErrDuplicate), broken("channels[3]", ErrDuplicate)}},
		{"two ports", Image, Policy{Channels: []Channel{{Type: "virtio"}, {Type: "virtio", Port: "a"}}}, nil},
		{"ports", Image, Policy{Channels: []Channel{{Type: "virtio", Port: "a/b"}, {Type: "virtio", Port: ".."}, {Type: "virtio", Port: strings.Repeat("a", 65)}, {Type: "virtio", Port: strings.Repeat("a", 64)}}}, []want{
			broken("channels[0].port", ErrPort), broken("channels[1].port", ErrPort), broken("channels[2].port", ErrPort)}},
		{"serial ports", Image, Policy{Channels: []Channel{{Type: "console"}, {Type: "console", Device: "/dev/ttyS1"}, {Type: "console", Device: "/dev/ttyAMA1"}, {Type: "console", Device: "/dev/hvc0"}}}, nil},
		{"no serial ports", Vendor, Policy{Channels: []Channel{{Type: "console", Device: "ttyS1"}, {Type: "console", Device: "/dev/sda1"}, {Type: "console", Device: "/dev/tty1"}, {Type: "console", Device: "/dev/tty"},
			{Type: "console", Device: "/dev/ttyS1/../sda1"}, {Type: "console", Device: "/dev/console"}, {Type: "console", Device: "/dev/hvc"}}}, []want{
			broken("channels[0].device", ErrDevice), broken("channels[1].device", ErrDevice), broken("channels[2].device", ErrDevice), broken("channels[3].device", ErrDevice),
			broken("channels[4].device", ErrDevice), broken("channels[5].device", ErrDevice), broken("channels[6].device", ErrDevice)}},
		{"a serial port twice", Image, Policy{Channels: []Channel{{Type: "console", Device: "/dev/ttyS1"}, {Type: "console", Device: "/dev/ttyS1"}}}, []want{broken("channels[1]", ErrDuplicate)}},
		{"a serial port of a file", Image, Policy{Channels: []Channel{{Type: "file", Device: "/dev/ttyS1"}}}, []want{broken("channels[0].device", ErrNotOfType)}},
		{"console with a port", Vendor, Policy{Channels: []Channel{{Type: "console", Port: "ttyS1"}}}, []want{broken("channels[0].port", ErrNotOfType)}},
		{"fields of other types", Vendor, Policy{Channels: []Channel{{Type: "file", Port: "a"}, {Type: "virtio", URL: "https://h/{id}", Method: "PUT", Headers: map[string]string{"A": "b"}, CAFile: "/a",
			Body: "raw", Template: "{}", Success: []int{200}, ClientCert: "/a", ClientKey: "/a", HMACKey: "a", Envelopes: "all", User: "a"}}}, []want{
			broken("channels[0].port", ErrNotOfType), broken("channels[1].url", ErrNotOfType), broken("channels[1].method", ErrNotOfType),
			broken("channels[1].headers", ErrNotOfType), broken("channels[1].body", ErrNotOfType), broken("channels[1].template", ErrNotOfType), broken("channels[1].success", ErrNotOfType),
			broken("channels[1].ca_file", ErrNotOfType), broken("channels[1].client_cert", ErrNotOfType), broken("channels[1].client_key", ErrNotOfType), broken("channels[1].hmac_key", ErrNotOfType),
			broken("channels[1].envelopes", ErrNotOfType), broken("channels[1].user", ErrNotOfType)}},

		{"banner", Image, Policy{Channels: []Channel{{Type: "ssh-banner"}}, Users: users(hybrid1)}, nil},
		{"banner, classic", Image, Policy{Channels: []Channel{{Type: "file"}, {Type: "ssh-banner"}}, Users: users(age1)}, []want{broken("channels[1].recipients", ErrClassicBanner)}},
		{"banner, classic escrow", Instance, Policy{Channels: []Channel{{Type: "ssh-banner", Recipients: "post_quantum"}}, EscrowRecipients: []string{age1}}, []want{broken("channels[0].recipients", ErrClassicBanner)}},
		{"banner, login keys", Image, Policy{Channels: []Channel{{Type: "ssh-banner"}}, RecipientsFrom: []string{"authorized_keys"}}, []want{broken("channels[0].recipients", ErrClassicBanner)}},
		{"banner for all", Image, Policy{Channels: []Channel{{Type: "ssh-banner", Recipients: "any"}}, Users: users(age1), RecipientsFrom: []string{"image", "authorized_keys"}}, nil},
		{"banner for some", Image, Policy{Channels: []Channel{{Type: "ssh-banner", Recipients: "some"}}}, []want{broken("channels[0].recipients", ErrWord)}},
		{"banner at a port, recipients of a file", Image, Policy{Channels: []Channel{{Type: "ssh-banner", Port: "a"}, {Type: "file", Recipients: "any"}}}, []want{
			broken("channels[0].port", ErrNotOfType), broken("channels[1].recipients", ErrNotOfType)}},
		{"two banners", Image, Policy{Channels: []Channel{{Type: "ssh-banner"}, {Type: "ssh-banner", Recipients: "any"}}}, []want{broken("channels[1]", ErrDuplicate)}},

		{"openstack", Image, Policy{Channels: []Channel{{Type: "openstack"}}, Users: users(age1)}, nil},
		{"openstack for one", Instance, Policy{Channels: []Channel{{Type: "openstack", User: "alice"}}}, nil},
		{"openstack for nobody", Image, Policy{Channels: []Channel{{Type: "openstack", User: "a/b"}}}, []want{broken("channels[0].user", ErrUserName)}},
		{"openstack elsewhere", Image, Policy{Channels: []Channel{{Type: "openstack", URL: "https://h/{id}", Envelopes: "all"}}}, []want{
			broken("channels[0].url", ErrNotOfType), broken("channels[0].envelopes", ErrNotOfType)}},
		{"openstack twice", Image, Policy{Channels: []Channel{{Type: "openstack", User: "alice"}, {Type: "openstack", User: "bob"}}}, []want{broken("channels[1]", ErrDuplicate)}},
		{"openstack, post-quantum", Image, Policy{Channels: []Channel{{Type: "openstack"}}, Users: []User{{"a", []string{hybrid1}}, {"b", nil}, {"c", []string{hybrid2}}}}, []want{
			broken("users[0].recipients", ErrNoRoom), broken("users[2].recipients", ErrNoRoom)}},
		{"openstack, post-quantum of another", Image, Policy{Channels: []Channel{{Type: "openstack", User: "b"}}, Users: []User{{"a", []string{hybrid1}}, {"b", nil}}}, nil},
		{"openstack, two recipients", Image, Policy{Channels: []Channel{{Type: "openstack"}}, Users: users(age1, ssh1)}, nil},
		{"openstack, too many recipients", Image, Policy{Channels: []Channel{{Type: "openstack"}}, Users: users(age1, age2), EscrowRecipients: []string{age3, ssh1}}, []want{broken("users[0].recipients", ErrNoRoom)}},
		{"openstack, too many of escrow", Image, Policy{Channels: []Channel{{Type: "openstack"}}, EscrowRecipients: []string{age1, age2, age3}}, []want{broken("escrow_recipients", ErrNoRoom)}},
		{"openstack, some of escrow", Image, Policy{Channels: []Channel{{Type: "openstack"}}, EscrowRecipients: []string{age1}}, nil},
		{"openstack, post-quantum in a layer", Instance, Policy{Channels: []Channel{{Type: "openstack"}}, Users: users(hybrid1)}, nil},

		{"http", Image, Policy{Channels: []Channel{http}}, nil},
		{"http with everything", Instance, Policy{Channels: []Channel{{Type: "http", URL: "https://u:p@panel.example:8443/{id}?k=v", Method: "POST", Headers: map[string]string{"X-Token": "a b {user}", "If-None-Match": "*"}, CAFile: "/etc/ca.pem",
			Body: "json", Template: `{"a": ["{armored}", "{id} {user}"], "b{hostname}": "{instance_id}"}`, Success: []int{200, 202}, ClientCert: "/etc/c.pem", ClientKey: "/etc/k.pem",
			HMACKey: "0123456789abcdef", Envelopes: "all", User: "alice"}}}, nil},
		{"http with everything an image may say", Image, Policy{Channels: []Channel{{Type: "http", URL: "https://panel.example/{instance_id}/{user}/{hostname}/{id}", Method: "POST", Body: "json",
			Success: []int{201}, CAFile: "/etc/ca.pem", Envelopes: "all", User: "alice"}}}, nil},
		{"http without url", Image, Policy{Channels: []Channel{{Type: "http"}}}, []want{broken("channels[0].url", ErrRequired)}},
		{"http without id", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https://panel.example/enroll" })}, []want{broken("channels[0].url", ErrNoID)}},
		{"http with id in the query", Vendor, Policy{Channels: with(func(c *Channel) { c.URL = "https://panel.example/?{id}" })}, []want{broken("channels[0].url", ErrNoID)}},
		{"http with id in a posted text", Image, Policy{Channels: with(func(c *Channel) { c.URL, c.Method, c.Body = "https://panel.example/hook", "POST", "json" })}, nil},
		{"http with id in a posted template", Vendor, Policy{Channels: with(func(c *Channel) {
			c.URL, c.Method, c.Body, c.Template = "https://panel.example/hook", "POST", "json", `{"i": "{id}", "e": "{armored}"}`
		})}, nil},
		{"http without id in a posted template", Vendor, Policy{Channels: with(func(c *Channel) {
			c.URL, c.Method, c.Body, c.Template = "https://panel.example/hook", "POST", "json", `{"e": "{armored}"}`
		})}, []want{broken("channels[0].url", ErrNoID)}},
		{"http with id in a text that is put", Vendor, Policy{Channels: with(func(c *Channel) { c.URL, c.Method, c.Body = "https://panel.example/hook", "PUT", "json" })}, []want{broken("channels[0].url", ErrNoID)}},
		{"http with id in a text and no method", Vendor, Policy{Channels: with(func(c *Channel) { c.URL, c.Method, c.Body = "https://panel.example/hook", "", "json" })}, []want{broken("channels[0].url", ErrNoID)}},
		{"http posted, not as a text", Vendor, Policy{Channels: with(func(c *Channel) { c.URL, c.Method = "https://panel.example/hook", "POST" })}, []want{broken("channels[0].url", ErrNoID)}},

		{"http in the clear", Image, Policy{Channels: with(func(c *Channel) { c.URL = "http://panel.example/{id}" })}, []want{broken("channels[0].url", ErrURL)}},
		{"http without host", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https:///{id}" })}, []want{broken("channels[0].url", ErrURL)}},
		{"http with a port only", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https://:443/{id}" })}, []want{broken("channels[0].url", ErrURL)}},
		{"http with a fragment", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https://h/{id}#a" })}, []want{broken("channels[0].url", ErrURL)}},
		{"http with a blank", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https://h/{id} a" })}, []want{broken("channels[0].url", ErrURL)}},
		{"http with no url", Image, Policy{Channels: with(func(c *Channel) { c.URL = "://{id}" })}, []want{broken("channels[0].url", ErrURL)}},
		{"http method", Image, Policy{Channels: with(func(c *Channel) { c.Method = "GET" })}, []want{broken("channels[0].method", ErrWord)}},
		{"http ca", Image, Policy{Channels: with(func(c *Channel) { c.CAFile = "ca.pem" })}, []want{broken("channels[0].ca_file", ErrGuestPath)}},
		{"http ca elsewhere", Image, Policy{Channels: with(func(c *Channel) { c.CAFile = "/etc/../ca.pem" })}, []want{broken("channels[0].ca_file", ErrGuestPath)}},
		{"http with port", Image, Policy{Channels: with(func(c *Channel) { c.Port = "a" })}, []want{broken("channels[0].port", ErrNotOfType)}},
		{"http header name", Vendor, Policy{Channels: with(func(c *Channel) { c.Headers = map[string]string{"X Token": "a"} })}, []want{broken("channels[0].headers", ErrHeader)}},
		{"http header smuggling", Vendor, Policy{Channels: with(func(c *Channel) { c.Headers = map[string]string{"X-Token": "a\r\nHost: b"} })}, []want{broken("channels[0].headers", ErrHeader)}},

		{"http header of the connection", Vendor, Policy{Channels: with(func(c *Channel) { c.Headers = map[string]string{"host": "a", "x-signature": "b"} })}, []want{
			broken("channels[0].headers", ErrHeader), broken("channels[0].headers", ErrHeader)}},
		{"http placeholder in a header", Vendor, Policy{Channels: with(func(c *Channel) { c.Headers = map[string]string{"A": "{name}", "B": `{"a": 1} {user`} })}, []want{broken("channels[0].headers", ErrPlaceholder)}},
		{"http placeholder in the url", Image, Policy{Channels: with(func(c *Channel) { c.URL += "/{name}" })}, []want{broken("channels[0].url", ErrPlaceholder)}},
		{"http brace in the url", Image, Policy{Channels: with(func(c *Channel) { c.URL += "/{user" })}, []want{broken("channels[0].url", ErrPlaceholder)}},
		{"http body", Image, Policy{Channels: with(func(c *Channel) { c.Body = "xml" })}, []want{broken("channels[0].body", ErrWord)}},
		{"http template without json", Vendor, Policy{Channels: with(func(c *Channel) { c.Template = `{"a": "{armored}"}` })}, []want{broken("channels[0].template", ErrNotOfType)}},
		{"http template, no envelope", Vendor, Policy{Channels: with(func(c *Channel) { c.Body, c.Template = "json", `{"a": "{id}"}` })}, []want{broken("channels[0].template", ErrTemplate)}},
		{"http template, no JSON", Vendor, Policy{Channels: with(func(c *Channel) { c.Body, c.Template = "json", `{"a": "{base64}"` })}, []want{broken("channels[0].template", ErrTemplate)}},
		{"http template, outside of a string", Vendor, Policy{Channels: with(func(c *Channel) { c.Body, c.Template = "json", `{"a": {base64}}` })}, []want{broken("channels[0].template", ErrTemplate)}},
		{"http template, unknown", Vendor, Policy{Channels: with(func(c *Channel) { c.Body, c.Template = "json", `{"a": "{base64} {token}"}` })}, []want{broken("channels[0].template", ErrPlaceholder)}},
		{"http template, too long", Vendor, Policy{Channels: with(func(c *Channel) { c.Body, c.Template = "json", `{"a": "{base64}`+strings.Repeat("a", 4096)+`"}` })}, []want{broken("channels[0].template", ErrTemplate)}},
		{"http success", Image, Policy{Channels: with(func(c *Channel) { c.Success = []int{200, 302, 200} })}, []want{broken("channels[0].success[1]", ErrStatus), broken("channels[0].success[2]", ErrDuplicate)}},
		{"http no success", Image, Policy{Channels: with(func(c *Channel) { c.Success = []int{} })}, []want{broken("channels[0].success", ErrEmptyValue)}},
		{"http half a pair", Vendor, Policy{Channels: with(func(c *Channel) { c.ClientCert = "/c" })}, []want{broken("channels[0].client_cert", ErrKeyPair)}},
		{"http the other half", Vendor, Policy{Channels: with(func(c *Channel) { c.ClientKey = "/k" })}, []want{broken("channels[0].client_key", ErrKeyPair)}},
		{"http key in the policy", Vendor, Policy{Channels: with(func(c *Channel) { c.ClientCert, c.ClientKey = "/c", "-----BEGIN PRIVATE KEY-----" })}, []want{broken("channels[0].client_key", ErrGuestPath)}},
		{"http short hmac key", Vendor, Policy{Channels: with(func(c *Channel) { c.HMACKey = "123456789012345" })}, []want{broken("channels[0].hmac_key", ErrHMACKey)}},
		{"http user", Vendor, Policy{Channels: with(func(c *Channel) { c.User = "a/b" })}, []want{broken("channels[0].user", ErrUserName)}},
		{"http for one", Instance, Policy{Channels: with(func(c *Channel) { c.URL, c.Envelopes, c.User = "https://h/a?X-Amz-Signature=b", "one", "alice" })}, nil},
		{"http for one of nobody", Instance, Policy{Channels: with(func(c *Channel) { c.Envelopes = "one" })}, []want{broken("channels[0].user", ErrRequired)}},
		{"http for one in an image", Image, Policy{Channels: with(func(c *Channel) { c.Envelopes, c.User = "one", "alice" })}, []want{broken("channels[0].envelopes", ErrOneInImage)}},
		{"http for two", Image, Policy{Channels: with(func(c *Channel) { c.Envelopes = "two" })}, []want{broken("channels[0].envelopes", ErrWord)}},

		{"jitter and keep", Vendor, Policy{Jitter: "0s", Keep: "365d"}, nil},
		{"jitter and keep, no lengths", Image, Policy{Jitter: "5", Keep: "forever"}, []want{broken("jitter", ErrDuration), broken("keep", ErrDuration)}},
		{"jitter and keep, too long", Image, Policy{Jitter: "601s", Keep: "3651d"}, []want{broken("jitter", ErrRange), broken("keep", ErrRange)}},
		{"keep, too short", Image, Policy{Keep: "59m"}, []want{broken("keep", ErrRange)}},

		{"credentials in an image", Image, Policy{Channels: with(func(c *Channel) {
			c.Body, c.Template, c.ClientCert, c.ClientKey, c.HMACKey = "json", `{"a": "{armored}"}`, "/c", "/k", "0123456789abcdef"
		})}, []want{
			broken("channels[0].template", ErrCredentialInImage), broken("channels[0].client_cert", ErrCredentialInImage), broken("channels[0].client_key", ErrCredentialInImage),
			broken("channels[0].hmac_key", ErrCredentialInImage)}},
		{"headers in an image", Image, Policy{Channels: with(func(c *Channel) { c.Headers = map[string]string{"X-Token": "a"} })}, []want{broken("channels[0].headers", ErrCredentialInImage)}},
		{"userinfo in an image", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https://me@h/{id}" })}, []want{broken("channels[0].url", ErrCredentialInImage)}},
		{"query in an image", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https://h/{id}?k=v" })}, []want{broken("channels[0].url", ErrCredentialInImage)}},
		{"empty query in an image", Image, Policy{Channels: with(func(c *Channel) { c.URL = "https://h/{id}?" })}, []want{broken("channels[0].url", ErrCredentialInImage)}},
		{"headers of a file in an image", Image, Policy{Channels: []Channel{{Type: "file", Headers: map[string]string{"X-Token": "a"}}}}, []want{
			broken("channels[0].headers", ErrNotOfType), broken("channels[0].headers", ErrCredentialInImage)}},

		{"sshd words", Image, Policy{SSHD: SSHD{Algorithms: "none", RootLogin: "yes", TCPForwarding: "no"}}, []want{
			broken("sshd.algorithms", ErrWord), broken("sshd.root_login", ErrWord), broken("sshd.tcp_forwarding", ErrWord)}},
		{"exempt names", Image, Policy{SSHD: SSHD{ExemptGroups: []string{"*", "ops,dev", "root", "ops", "ops"}, ExemptUsers: []string{"!alice", "root", "a b", "-x"}}}, []want{
			broken("sshd.exempt_groups[0]", ErrUserName), broken("sshd.exempt_groups[1]", ErrUserName), broken("sshd.exempt_groups[2]", ErrExemptRoot), broken("sshd.exempt_groups[4]", ErrDuplicate),
			broken("sshd.exempt_users[0]", ErrUserName), broken("sshd.exempt_users[1]", ErrExemptRoot), broken("sshd.exempt_users[2]", ErrUserName), broken("sshd.exempt_users[3]", ErrUserName)}},
		{"exempt nobody", Image, Policy{SSHD: SSHD{ExemptGroups: []string{}, ExemptUsers: []string{}, ExemptFrom: []string{}}}, []want{
			broken("sshd.exempt_groups", ErrEmptyValue), broken("sshd.exempt_users", ErrEmptyValue), broken("sshd.exempt_from", ErrEmptyValue)}},
		{"networks", Image, Policy{SSHD: SSHD{ExemptFrom: []string{"10.0.0.0/8", "192.0.2.7/32", "fd00::/16", "2001:db8::1/128"}}}, nil},
		{"no networks", Image, Policy{SSHD: SSHD{ExemptFrom: []string{"0.0.0.0/0", "::/0", "10.0.0.0/7", "10.1.2.3/8", "10.0.0.1", "::ffff:10.0.0.0/104", "any", "10.0.0.0/8,1.0.0.0/8", "FD00::/16", "10.0.0.0/8", "10.0.0.0/8"}}}, []want{
			broken("sshd.exempt_from[0]", ErrExemptAll), broken("sshd.exempt_from[1]", ErrExemptAll), broken("sshd.exempt_from[2]", ErrExemptAll), broken("sshd.exempt_from[3]", ErrCIDR),
			broken("sshd.exempt_from[4]", ErrCIDR), broken("sshd.exempt_from[5]", ErrCIDR), broken("sshd.exempt_from[6]", ErrCIDR), broken("sshd.exempt_from[7]", ErrCIDR),
			broken("sshd.exempt_from[8]", ErrCIDR), broken("sshd.exempt_from[10]", ErrDuplicate)}},
		{"networks of the machine itself", Image, Policy{SSHD: SSHD{ExemptFrom: []string{"127.0.0.0/8", "127.0.0.1/32", "127.0.0.8/30", "::1/128", "::/16", "::/96", "::/127", "0.0.0.0/0", "126.0.0.0/7", "::/0", "::ffff:127.0.0.1/128", "::ffff:0.0.0.0/96", "::/15", "127.0.0.1/8", "::2/128", "128.0.0.0/8"}}}, []want{
			broken("sshd.exempt_from[0]", ErrExemptLocal), broken("sshd.exempt_from[1]", ErrExemptLocal), broken("sshd.exempt_from[2]", ErrExemptLocal), broken("sshd.exempt_from[3]", ErrExemptLocal),
			broken("sshd.exempt_from[4]", ErrExemptLocal), broken("sshd.exempt_from[5]", ErrExemptLocal), broken("sshd.exempt_from[6]", ErrExemptLocal), broken("sshd.exempt_from[7]", ErrExemptAll),
			broken("sshd.exempt_from[8]", ErrExemptAll), broken("sshd.exempt_from[9]", ErrExemptAll), broken("sshd.exempt_from[10]", ErrCIDR), broken("sshd.exempt_from[11]", ErrCIDR),
			broken("sshd.exempt_from[12]", ErrExemptAll), broken("sshd.exempt_from[13]", ErrExemptLocal)}},
		{"build user", Image, Policy{Clean: Clean{BuildUser: "root"}}, []want{broken("clean.build_user", ErrBuildUser)}},
		{"build user who is to stay", Image, Policy{Users: []User{{Name: "alice"}}, Clean: Clean{BuildUser: "alice"}}, []want{broken("clean.build_user", ErrBuildUser)}},
		{"build user's name", Image, Policy{Clean: Clean{BuildUser: "../x"}}, []want{broken("clean.build_user", ErrUserName)}},
		{"time and firewall", Image, Policy{TimeSync: "yes", Firewall: "off"}, []want{broken("time_sync", ErrWord), broken("firewall", ErrWord)}},

		{"token in an image", Image, Policy{Token: token}, []want{broken("token", ErrCredentialInImage)}},
		{"token of the vendor", Vendor, Policy{Token: token}, []want{broken("token", ErrNotInLayer)}},
		{"token", Instance, Policy{Token: token}, nil},
		{"token cut", Instance, Policy{Token: token[:21]}, []want{broken("token", ErrToken)}},
		{"token padded", Instance, Policy{Token: token + "=="}, []want{broken("token", ErrToken)}},
		{"token with a newline", Instance, Policy{Token: token + "\n"}, []want{broken("token", ErrToken)}},
		{"token of a second spelling", Instance, Policy{Token: token[:21] + "x"}, []want{broken("token", ErrToken)}},

		{"version to come, image", Image, Policy{Version: 2}, []want{broken("version", ErrVersion)}},
		{"version to come, vendor", Vendor, Policy{Version: 2}, nil},
		{"version below zero", Instance, Policy{Version: -1}, []want{broken("version", ErrVersion)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.p.Version == 0 {
				tt.p.Version = 1
			}
			check(t, tt.p.Validate(tt.layer).orNil(), tt.wants...)
			channels.note(tt.p, tt.wants)
		})
	}
	check(t, new(Policy).Validate(Image).orNil(), broken("version", ErrRequired))
}

// tested notes which channels TestValidate has cases for: good ones, and bad ones.
type tested map[string]struct{ good, bad bool }

func (c tested) note(p Policy, wants []want) {
	for i, ch := range p.Channels {
		t := c[ch.Type]
		t.good = t.good || len(wants) == 0
		t.bad = t.bad || slices.ContainsFunc(wants, func(w want) bool { return strings.HasPrefix(w.path, at("channels", i)) })
		c[ch.Type] = t
	}
}

func (c tested) complete(t *testing.T) {
	t.Helper()
	for _, typ := range ChannelTypes() {
		if !c[typ].good || !c[typ].bad {
			t.Errorf("channel %s has no case here that holds, or none that does not: %+v", typ, c[typ])
		}
	}
}

func TestValidUserName(t *testing.T) {
	for _, name := range []string{"a", "_", "alice", "_apt", "www-data", "a.b", "a_b-c.9", strings.Repeat("a", 32)} {
		if err := ValidUserName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "a..b", "a/b", "/", "-a", "a:b", "Alice", "9a", ".a", "a b", " a", "a\n", "a\x00", "é", "аlice", "a$", "a@b", "~", "${USER}", "*",
		strings.Repeat("a", 33), strings.Repeat("a", 100000),
	} {
		if err := ValidUserName(name); !errors.Is(err, ErrUserName) {
			t.Errorf("%.40q: got %v", name, err)
		}
	}
}

func TestWithDefaults(t *testing.T) {
	p := &Policy{Channels: []Channel{{Type: "http", Headers: map[string]string{"A": "b"}}, {Type: "virtio"}}}
	d := p.WithDefaults()
	if d.Channels[0].Method != "PUT" || d.Channels[1].Port != DefaultPort || p.Channels[1].Port != "" {
		t.Errorf("channels: got %#v, and left %#v", d.Channels, p.Channels)
	}
	if d.Channels[0].Body != "raw" || d.Channels[0].Envelopes != "all" || d.Channels[0].Template != "" {
		t.Errorf("http: got %#v", d.Channels[0])
	}
	d.Channels[0].Headers["A"] = "c"
	if p.Channels[0].Headers["A"] != "b" {
		t.Error("the copy has its headers in common with the original")
	}

	d = new(Policy).WithDefaults()
	v := reflect.ValueOf(*d)
	for i, key := range keysOf(v.Type()) {
		switch key {
		case "", "users", "escrow_recipients", "clean", "token", "cloud_init_module", "cloud_init_module_listed":
		default:
			if v.Field(i).IsZero() {
				t.Errorf("%s has no default", key)
			}
		}
	}
	if d := (&Policy{CloudInitModuleListed: true}).WithDefaults(); !d.CloudInitModule {
		t.Error("a module that is listed and not there")
	}
	if errs := d.Validate(Image); errs != nil {
		t.Errorf("the defaults are not valid: %v", errs)
	}
	if !reflect.DeepEqual(d, d.WithDefaults()) {
		t.Error("defaults change what has them")
	}
	full := fullPolicy()
	full.Channels = full.Channels[:3] // http has defaults of its own
	if !reflect.DeepEqual(full.WithDefaults(), full) {
		t.Error("defaults change what says all")
	}
}

func TestChannelTypes(t *testing.T) {
	types := ChannelTypes()
	if !slices.IsSorted(types) {
		t.Error("not sorted")
	}
	least := map[string]Channel{ChannelHTTP: {URL: "https://panel.example/{id}"}}
	for _, typ := range types {
		c := least[typ]
		c.Type = typ
		if errs := (&Policy{Version: 1, Channels: []Channel{c}}).Validate(Image); errs != nil {
			t.Error(errs)
		}
	}
	for _, c := range new(Policy).WithDefaults().Channels {
		if !slices.Contains(types, c.Type) {
			t.Errorf("%s is a default and no type", c.Type)
		}
	}
}

func TestNoSecretsInPrint(t *testing.T) {
	const hush = "hushhushhush"
	p := &Policy{Token: hush, Channels: []Channel{{Type: "http", URL: "https://" + hush, Headers: map[string]string{"X": hush}, Template: hush, HMACKey: hush}}}
	e, _ := Merge(&Policy{}, nil, p)
	for _, v := range []any{p, *p, p.Channels, p.Channels[0], &p.Channels[0], e, *e, []*Policy{p}, struct{ P *Policy }{p}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			if s := fmt.Sprintf(verb, v); strings.Contains(s, hush) {
				t.Errorf("%s of a %T: %s", verb, v, s)
			}
		}
		if b, err := json.Marshal(v); err != nil || strings.Contains(string(b), hush) {
			t.Errorf("JSON of a %T: %s, %v", v, b, err)
		}
	}
}
