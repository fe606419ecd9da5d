// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// TestRoutes: the table names only what exists, and each provider has a way out.
func TestRoutes(t *testing.T) {
	var types []string
	for _, kind := range ChannelKinds() {
		if typ, _, _ := strings.Cut(kind, ","); !slices.Contains(types, typ) {
			types = append(types, typ)
		}
	}
	for _, typ := range policy.ChannelTypes() {
		if !slices.Contains(types, typ) {
			t.Errorf("channel %s is not in the table", typ)
		}
	}
	for name, kinds := range routes {
		if p, ok := FindProvider(name); !ok || p.Name != name {
			t.Errorf("%q is not a provider", name)
		}
		for kind := range kinds {
			if _, ok := everywhere[kind]; ok || !slices.Contains(channelKinds, kind) {
				t.Errorf("%s: %q is not a kind of the table", name, kind)
			}
		}
	}
	for _, p := range Providers() {
		if len(p.Kinds(Available)) == 0 {
			t.Errorf("%s: no channel is available", p.Name)
		}
	}
	for other, name := range aliases {
		if p, ok := FindProvider(other); !ok || p.Name != name {
			t.Errorf("%s is %q, want %s", other, p.Name, name)
		}
	}
	for builder, want := range map[string]string{
		"hcloud": "hetzner", "digitalocean": "digitalocean", "amazon-ebs": "ec2", "amazon-ebssurrogate": "ec2", "proxmox-iso": "proxmox", "openstack": "openstack",
		"googlecompute": "gcp", "azure-arm": "azure", "qemu": "", "null": "", "docker": "", "": "",
	} {
		if p, ok := FindBuilder(builder); p.Name != want || ok != (want != "") {
			t.Errorf("builder %q is of %q, want %q", builder, p.Name, want)
		}
	}
}

// TestWayOut: which documents have no channel that brings the card out of the host, by
// what is known of provider and image.
func TestWayOut(t *testing.T) {
	pq := hybrid(t)
	doc := func(recipient string, channels ...Channel) Spec {
		return Spec{Users: []User{{Name: "anna", Recipients: []string{recipient}, SSHKeys: []string{annaKey}}}, Channels: channels}
	}
	const (
		defaults = ""
		banner   = "channels: [{type: ssh-banner}]\n"
		console  = "channels: [{type: console}]\n"
		serial   = "channels: [{type: console, device: /dev/ttyS1}]\n"
		virtio   = "channels: [{type: virtio}]\n"
		http     = "channels: [{type: http, url: 'https://panel.example/{id}'}]\n"
		nova     = "channels: [{type: openstack}]\n"
		novaBob  = "channels: [{type: openstack, user: bob}]\n"
		none     = "-" // no report
	)
	noWay := []problem{{"users[0]", ErrNoWayOut}}
	unknown := []problem{{"users[0]", ErrUnknownWay}}
	noImage := []problem{{"users[0]", ErrUnknownImage}}
	for _, tt := range []struct {
		name            string
		provider, image string
		spec            Spec
		warnings, errs  []problem
	}{
		// README's own way, once: no port, no log, no one who reads the file.
		{"hetzner, default channels", "hetzner", defaults, doc(aliceAge), nil, noWay},
		{"hetzner, default channels, post-quantum", "hetzner", defaults, doc(pq), nil, noWay},
		{"hetzner, virtio and console", "hetzner", "channels: [{type: virtio}, {type: console}]\n", doc(aliceAge), nil, noWay},
		{"hetzner, serial port", "hetzner", serial, doc(aliceAge), nil, noWay},
		{"hetzner, banner of the document", "hetzner", defaults, doc(pq, Channel{Type: "ssh-banner"}), nil, nil},
		{"hetzner, banner of the image", "hetzner", banner, doc(pq), nil, nil},
		{"hetzner, http of the image", "hetzner", http, doc(aliceAge), nil, nil},
		{"hetzner, http of the document", "hetzner", defaults, doc(aliceAge, Channel{Type: "http", URL: "https://panel.example/{id}"}), nil, nil},
		{"hetzner, http for another user", "hetzner", defaults, doc(aliceAge, Channel{Type: "http", URL: "https://panel.example/x", Envelopes: "one", User: "bob"}), nil, noWay},
		{"hetzner, no report", "hetzner", none, doc(aliceAge), noImage, nil},
		{"hetzner, no report, post-quantum", "hetzner", none, doc(pq), noImage, nil},
		{"hetzner, no report, useless channel", "hetzner", none, doc(aliceAge, Channel{Type: "console"}), noImage, nil},
		{"hetzner, no report, banner of the document", "hetzner", none, doc(pq, Channel{Type: "ssh-banner"}), nil, nil},
		{"hcloud is hetzner", "hcloud", defaults, doc(aliceAge), nil, noWay},
		{"digitalocean, default channels", "digitalocean", defaults, doc(aliceAge), nil, noWay},
		// A console that may keep a log.
		{"linode, default channels", "linode", defaults, doc(aliceAge), unknown, nil},
		{"vultr, virtio", "vultr", virtio, doc(aliceAge), nil, noWay},
		{"azure, default channels", "azure", defaults, doc(aliceAge), unknown, nil},
		{"azure, no report", "azure", none, doc(aliceAge), noImage, nil},
		{"scaleway, banner", "scaleway", banner, doc(pq), nil, nil},
		{"ec2, default channels", "ec2", defaults, doc(aliceAge), nil, nil},
		{"ec2, no report", "ec2", none, doc(aliceAge), nil, nil},
		{"ec2, virtio", "ec2", virtio, doc(aliceAge), unknown, nil},
		{"ec2, serial port", "ec2", serial, doc(aliceAge), unknown, nil},
		{"gcp, serial port", "gcp", serial, doc(aliceAge), nil, nil},
		{"ec2, openstack", "ec2", nova, doc(aliceAge), nil, noWay},
		// One's own machines.
		{"proxmox, default channels", "proxmox", defaults, doc(aliceAge), nil, nil},
		{"proxmox, no report", "proxmox", none, doc(aliceAge), nil, nil},
		{"libvirt, virtio", "libvirt", virtio, doc(aliceAge), nil, nil},
		{"qemu, openstack; vendor-data may name another", "qemu", nova, doc(aliceAge), noWay, nil},
		// Little room.
		{"openstack", "openstack", nova, doc(aliceAge), nil, nil},
		{"openstack, post-quantum", "openstack", nova, doc(pq), noWay, nil},
		{"openstack, post-quantum, console", "openstack", "channels: [{type: openstack}, {type: console}]\n", doc(pq), nil, nil},
		{"openstack, another user's", "openstack", novaBob, doc(aliceAge), noWay, nil},
		{"openstack, no report, post-quantum", "openstack", none, doc(pq, Channel{Type: "openstack"}), nil, nil}, // the default console
		// Any host.
		{"no provider", "", defaults, doc(aliceAge), nil, nil},
		// The provider's layer.
		{"vendor, useless channel", "hetzner", none, Spec{Vendor: true, Channels: []Channel{{Type: "virtio"}}}, []problem{{"channels", ErrNoWayOut}}, nil},
		{"vendor, channel", "proxmox", none, Spec{Vendor: true, Channels: []Channel{{Type: "virtio"}}}, nil, nil},
		{"vendor, no channel", "hetzner", none, Spec{Vendor: true, Issuer: "x"}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h Host
			var ok bool
			if h.Provider, ok = FindProvider(tt.provider); !ok {
				t.Fatal("unknown provider")
			}
			if tt.image != none {
				h.Image = imageOf(t, "9.2", tt.image)
			}
			warnings, errs := tt.spec.Review(h, "", nil)
			checkProblems(t, "warnings", warnings, tt.warnings)
			checkProblems(t, "errors", errs, tt.errs)
		})
	}
}

// TestClassicBanner: what the remedy for a plain VPS asks for is said where it is
// missing.
func TestClassicBanner(t *testing.T) {
	p, _ := FindProvider("hetzner")
	for recipient, classic := range map[string]bool{aliceAge: true, hybrid(t): false} {
		warnings, _ := Spec{Users: []User{{Name: "anna", Recipients: []string{recipient}}}}.Review(Host{Provider: p}, "", nil)
		if len(warnings) != 1 || strings.Contains(warnings[0].Fix, "is classic") != classic {
			t.Errorf("classic: %v: %v", classic, warnings)
		}
	}
	s := Spec{Users: []User{{Name: "anna", Recipients: []string{aliceAge}}}, Channels: []Channel{{Type: "ssh-banner"}}}
	if _, err := s.Document(); !errors.Is(err, policy.ErrClassicBanner) {
		t.Errorf("a banner for classic recipients: %v", err)
	}
}

// TestCheckImage: what the provisioner says about an image for a provider.
func TestCheckImage(t *testing.T) {
	for _, tt := range []struct {
		provider string
		channels []Channel
		want     error
	}{
		{"hetzner", nil, ErrNoWayOut},
		{"hetzner", []Channel{{Type: "console", Device: "/dev/ttyS1"}}, ErrNoWayOut},
		{"hetzner", []Channel{{Type: "virtio"}, {Type: "ssh-banner"}}, nil},
		{"linode", nil, ErrUnknownWay},
		{"ec2", nil, nil},
		{"proxmox", nil, nil},
		{"openstack", []Channel{{Type: "virtio"}}, ErrUnknownWay},
	} {
		p, _ := FindProvider(tt.provider)
		if e := p.CheckImage(tt.channels); (e == nil) != (tt.want == nil) || e != nil && !errors.Is(e, tt.want) {
			t.Errorf("%s, %v: %v, want %v", tt.provider, tt.channels, e, tt.want)
		}
	}
}
