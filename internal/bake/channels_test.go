// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// The certificates of the system are there where a channel of the image needs
// them, and nowhere else on its account.
func TestCACertificates(t *testing.T) {
	plain := policy.Channel{Type: policy.ChannelHTTP, URL: "https://panel.example/{id}"}
	pinned := plain
	pinned.CAFile = "/etc/ca.pem"
	for _, tt := range []struct {
		name     string
		channel  policy.Channel
		packages string
		there    bool
		install  bool
		findings []string
	}{
		{"none", policy.Channel{Type: policy.ChannelFile}, "", false, false, nil},
		{"http", plain, "", false, true, nil},
		{"http, and they are there", plain, "", true, false, nil},
		{"http with a CA of its own", pinned, "", false, false, nil},
		{"http, and packages are not ours to install", plain, policy.PackagesPresent, false, false, []string{"ca-certificates " + target.CABundles[0]}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			if tt.there {
				m.put(target.CABundles[0], "", 0o644)
			}
			m.apt = func(argv []string) {
				if slices.Contains(argv, "ca-certificates") {
					m.put(target.CABundles[0], "", 0o644)
				}
			}
			o := m.options()
			o.Policy.Channels, o.Policy.Packages = []policy.Channel{tt.channel}, tt.packages
			_, err := Run(t.Context(), m.Target, o)
			m.must(err)
			if got := strings.Contains(strings.Join(m.Calls(), "\n"), " ca-certificates"); got != tt.install {
				t.Errorf("installed: %v, want %v", got, tt.install)
			}
			findings, err := Check(t.Context(), m.Target)
			m.must(err)
			if got := ids(findings); !slices.Equal(got, tt.findings) {
				t.Errorf("found %q, want %q", got, tt.findings)
			}
		})
	}
}

func TestOnce(t *testing.T) {
	p := &policy.Policy{Channels: []policy.Channel{{Type: policy.ChannelFile}, {Type: policy.ChannelHTTP, Envelopes: policy.EnvelopesOne}}}
	if got := once(p); !strings.Contains(got, "channels[1] (http)") || strings.Contains(got, "channels[0]") {
		t.Errorf("got %q", got)
	}
	p.Channels = []policy.Channel{{Type: policy.ChannelOpenStack}}
	if got := once(p); !strings.Contains(got, "channels[0] (openstack)") || !strings.Contains(got, "any one of them") {
		t.Errorf("got %q", got)
	}
	p.Channels[0].User = "alice"
	if got := once(p); !strings.Contains(got, "channels[0] (openstack)") || strings.Contains(got, "any one of them") {
		t.Errorf("got %q", got)
	}
	p.Channels = []policy.Channel{{Type: policy.ChannelFile}}
	if got := once(&policy.Policy{Channels: p.Channels[:1]}); got != "" {
		t.Errorf("got %q", got)
	}
}
