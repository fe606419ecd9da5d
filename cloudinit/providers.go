// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// Budget is the size in bytes that fits everywhere.
const Budget = 12 << 10

// A Provider is somebody who takes user-data, or a way to give it.
type Provider struct {
	Name  string
	Limit int // in bytes; 0: none is known, and [Budget] counts

	// Unlimited means that there is no limit besides [MaxSize].
	Unlimited bool

	// Encoded means that the limit is one of the base64, not of the document.
	Encoded bool

	// Vendor means that cloud-init's datasource takes vendor-data: that of cloud-init
	// 25.1 and 26.2 sets vendordata_raw (cloudinit/sources/DataSource….py).
	Vendor bool

	// OwnVendor means that the customer, or the operator that the document is for, can write the vendor-data, so that
	// channels may come from there.
	OwnVendor bool

	// Source is where the limit is written. Confirmed means that somebody of this
	// project has read it there.
	Source    string
	Confirmed bool
}

// providers are sorted by name.
var providers = []Provider{
	{Name: "azure", Limit: 65535, Source: "Azure REST API, osProfile.customData", Confirmed: true},
	{Name: "digitalocean", Limit: 64 << 10, Vendor: true, Source: "DigitalOcean API, create a droplet, user_data", Confirmed: true},
	{Name: "ec2", Limit: 16 << 10, Source: "EC2 user guide, instance user data: 16 KB in raw form", Confirmed: true},
	{Name: "gcp", Limit: 256 << 10, Source: "Compute Engine REST API, metadata value: 262144 bytes", Confirmed: true},
	{Name: "hetzner", Limit: 32 << 10, Vendor: true, Source: "Hetzner Cloud API, create a server, user_data: 32 KiB", Confirmed: true},
	{Name: "ibm", Limit: 64 << 10, Vendor: true, Source: "IBM Cloud VPC, user data: 64 K bytes", Confirmed: true},
	{Name: "linode", Limit: 16 << 10, Source: "decoded; Linode's own github.com/linode/cluster-api-provider-linode counts so, its API says 65535 or 16 KB: https://techdocs.akamai.com/linode-api/reference/post-linode-instance", Confirmed: true},
	{Name: "nocloud", Unlimited: true, Vendor: true, OwnVendor: true, Source: "a disk or directory of your own: libvirt, QEMU", Confirmed: true},
	{Name: "openstack", Limit: 65535, Encoded: true, Vendor: true, OwnVendor: true, Source: "Nova user guide, user data: 65535 bytes of base64", Confirmed: true},
	{Name: "oracle", Limit: 32000, Encoded: true, Source: "all keys of the metadata together: https://docs.oracle.com/iaas/Content/Compute/Tasks/updatinginstancemetada.htm", Confirmed: true},
	{Name: "proxmox", Unlimited: true, Vendor: true, OwnVendor: true, Source: "a snippet or disk of your own", Confirmed: true},
	{Name: "scaleway", Vendor: true, Source: "no limit published; default budget"},
	{Name: "upcloud", Vendor: true, Source: "no limit published; default budget"},
	{Name: "vmware", Limit: 524288, Vendor: true, OwnVendor: true, Source: "vSphere API, CustomizationCloudinitPrep: 524288 bytes", Confirmed: true},
	{Name: "vultr", Vendor: true, Source: "no limit published; default budget"},
}

// Providers returns those whose limits are known, or are known to be unknown,
// sorted by name.
func Providers() []Provider { return slices.Clone(providers) }

// FindProvider returns the provider of that name; "" is everybody.
func FindProvider(name string) (Provider, bool) {
	if name == "" {
		return Provider{Limit: Budget}, true
	}
	name = strings.ToLower(name)
	if other, ok := aliases[name]; ok {
		name = other
	}
	i := slices.IndexFunc(providers, func(p Provider) bool { return p.Name == name })
	if i < 0 {
		return Provider{}, false
	}
	return providers[i], true
}

// Check returns nil or an [*Error] that wraps [ErrOverLimit]: whether the
// provider takes a document of this size.
func (p Provider) Check(doc []byte) error {
	size, unit := len(doc), "bytes"
	if p.Encoded {
		size, unit = base64.StdEncoding.EncodedLen(len(doc)), "bytes of base64"
	}
	limit := p.limit()
	if size <= limit {
		return nil
	}
	name, fix := p.Name, "leave something out, or let the machine fetch it by #include"
	switch {
	case name == "":
		name, fix = "user-data", "a document within the limit fits everywhere; where yours takes more, name the provider"
	case p.Limit == 0 && !p.Unlimited:
		fix = "no larger limit is known; " + fix
	}
	return &Error{Path: name, Rule: fmt.Errorf("%d %s: %w, %d %s", size, unit, ErrOverLimit, limit, unit), Fix: fix}
}

func (p Provider) limit() int {
	switch {
	case p.Unlimited:
		return MaxSize
	case p.Limit == 0:
		return Budget
	}
	return p.Limit
}

// String returns the limit for people.
func (p Provider) String() string {
	text := fmt.Sprintf("%d bytes", p.limit())
	switch {
	case p.Unlimited:
		text = "no limit"
	case p.Limit == 0:
		text += " (none is known)"
	case p.Encoded:
		text += " of base64"
	}
	return text
}
