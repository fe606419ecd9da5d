// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/card"
	"github.com/packer-plugin-totp/packer-plugin-totp/secrets/seal"
)

func report(t *testing.T, policy string) *Image {
	t.Helper()
	data, err := json.Marshal(map[string]any{"version": 1, "agent": "0.1.0", "policy": "version: 1\n" + policy})
	if err != nil {
		t.Fatal(err)
	}
	image, err := ParseReport("report.json", data)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func hashes(t *testing.T, recipients ...string) []string {
	t.Helper()
	out := []string{}
	for _, s := range recipients {
		r, err := seal.ParseRecipient(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r.Hash())
	}
	return out
}

const thirdAge = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"

func TestTicket(t *testing.T) {
	now := time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)
	alice := []User{{Name: "alice", Recipients: []string{aliceAge}}}
	for _, tt := range []struct {
		name      string
		spec      Spec
		image     *Image
		must, may []string
		want      []problem
	}{
		{name: "own recipients", spec: Spec{Token: token, Users: alice}, must: hashes(t, aliceAge), may: []string{}},
		{name: "escrow of the document", spec: Spec{Token: token, Users: alice, EscrowRecipients: []string{deskAge}}, must: hashes(t, aliceAge, deskAge), may: []string{}},
		{name: "escrow of the image", spec: Spec{Token: token, Users: alice}, image: report(t, "escrow_recipients: ["+deskAge+"]\n"), must: hashes(t, aliceAge), may: hashes(t, deskAge)},
		{name: "escrow of both", spec: Spec{Token: token, Users: alice, EscrowRecipients: []string{deskAge}}, image: report(t, "escrow_recipients: ["+deskAge+"]\n"), must: hashes(t, aliceAge, deskAge), may: []string{}},
		{name: "the image's recipients are replaced", spec: Spec{Token: token, Users: alice}, image: report(t, "users: [{name: alice, recipients: ["+deskAge+"]}]\n"), must: hashes(t, aliceAge), may: []string{}},
		{name: "the image's recipients count", spec: Spec{Token: token, Users: []User{{Name: "alice"}}}, image: report(t, "users: [{name: alice, recipients: ["+thirdAge+"]}]\n"), must: hashes(t, thirdAge), may: []string{}},
		{name: "login keys", spec: Spec{Token: token, Users: []User{{Name: "alice", SSHKeys: []string{aliceSSH}}}}, image: report(t, "recipients_from: [authorized_keys]\n"), must: []string{}, may: hashes(t, aliceSSH)},
		{name: "nobody is known", spec: Spec{Token: token, Users: []User{{Name: "alice"}}}, want: []problem{{"users[0].recipients", ErrNoRecipients}}},
		{name: "nobody is named", spec: Spec{Token: token, Issuer: "x"}, want: []problem{{"users", ErrNothing}}},
		{name: "no token", spec: Spec{Users: alice}, want: []problem{{"token", policy.ErrRequired}}},
		{name: "the image would refuse it", spec: Spec{Token: token, Users: alice}, image: report(t, "recipients_from: [image]\n"), want: []problem{{"users[0].recipients", ErrRefused}}},
		{name: "classes", spec: Spec{Token: token, Users: alice}, image: report(t, "escrow_recipients: ["+hybrid(t)+"]\n"), want: []problem{{"users[0].recipients[0]", seal.ErrMixedClasses}}},
		{name: "looser", spec: Spec{Token: token, Users: alice, RateLimit: "standard"}, image: report(t, "rate_limit: strict\n"), want: []problem{{"rate_limit", policy.ErrLoosens}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.spec.Ticket(tt.image, now, now.Add(time.Hour))
			if tt.want != nil {
				p := problems(t, err)
				if len(p) != 1 || p[0].path != tt.want[0].path || !errors.Is(p[0].rule, tt.want[0].rule) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := base64.RawURLEncoding.DecodeString(token)
			want := []seal.TicketUser{{Name: "alice", Token: seal.HashToken(card.TokenMAC(raw, "alice")), Must: tt.must, May: tt.may}}
			if d := cmp.Diff(want, got.Users); d != "" {
				t.Error(d)
			}
		})
	}
	if _, err := (Spec{Token: token, Users: alice}).Ticket(nil, now, now); !errors.Is(err, ErrExpired) {
		t.Errorf("got %v, want ErrExpired", err)
	}
}

func hybrid(t *testing.T) string {
	t.Helper()
	_, r, err := seal.GenerateHybrid()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestParseReport(t *testing.T) {
	for _, bad := range []string{"", "{}", `{"version":2,"policy":"version: 1"}`, `[]`} {
		if _, err := ParseReport("r", []byte(bad)); !errors.Is(err, ErrReport) {
			t.Errorf("%s: got %v, want ErrReport", bad, err)
		}
	}
	if _, err := ParseReport("r", []byte(`{"version":1,"policy":"version: 1\nx: 1\n"}`)); !errors.Is(err, policy.ErrUnknownKey) {
		t.Errorf("got %v, want ErrUnknownKey", err)
	}
}

func TestUnread(t *testing.T) {
	s := Spec{Users: []User{{Name: "alice"}, {Name: "bob", Recipients: []string{aliceAge}}}}
	if got := s.Unread(nil); !slices.Equal(got, []string{"alice"}) {
		t.Errorf("got %v, want alice", got)
	}
	if got := s.Unread(report(t, "users: [{name: alice, recipients: ["+aliceAge+"]}]\n")); got != nil {
		t.Errorf("got %v, want nobody", got)
	}
}

func TestProviders(t *testing.T) {
	if !slices.IsSortedFunc(Providers(), func(a, b Provider) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("not sorted")
	}
	for _, tt := range []struct {
		name string
		most int // the largest document that is taken
	}{
		{"", 12288}, {"ec2", 16384}, {"EC2", 16384}, {"openstack", 49149}, {"oracle", 24000}, {"nocloud", 1 << 20}, {"vultr", 12288}, {"azure", 65535},
	} {
		p, ok := FindProvider(tt.name)
		if !ok {
			t.Fatalf("%q is not known", tt.name)
		}
		if err := p.Check(make([]byte, tt.most)); err != nil {
			t.Errorf("%q, %d bytes: %v", tt.name, tt.most, err)
		}
		if err := p.Check(make([]byte, tt.most+1)); !errors.Is(err, ErrOverLimit) {
			t.Errorf("%q, %d bytes: %v, want ErrOverLimit", tt.name, tt.most+1, err)
		}
	}
	if _, ok := FindProvider("mars"); ok {
		t.Error("mars is known")
	}
	for _, want := range []string{"ec2", "gcp", "azure", "openstack", "digitalocean", "hetzner", "vultr", "linode", "upcloud", "scaleway", "oracle", "nocloud"} {
		if _, ok := FindProvider(want); !ok {
			t.Errorf("%s is missing", want)
		}
	}
}

// TestFitsTheBudget: a document of two post-quantum recipients and a channel
// fits everywhere.
func TestFitsTheBudget(t *testing.T) {
	s := Spec{
		Issuer: "Example Hosting", Token: token,
		Users:            []User{{Name: "alice", Recipients: []string{hybrid(t)}, SSHKeys: []string{aliceSSH}}},
		EscrowRecipients: []string{hybrid(t)},
		Channels:         []Channel{{Type: "virtio"}},
	}
	doc, err := s.Document()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := FindProvider("")
	if err := p.Check(doc); err != nil || len(doc) > Budget/2 {
		t.Errorf("%d bytes: %v", len(doc), err)
	}
}

func BenchmarkDocument(b *testing.B) {
	s := specs["owner"]
	for b.Loop() {
		if _, err := s.Document(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "docs/s")
}

func BenchmarkMerge(b *testing.B) {
	doc := []byte(inPlace["plain"])
	for b.Loop() {
		if _, err := ours.Merge("", doc); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "docs/s")
}
