// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit

import (
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
)

// An Availability reports whether a channel brings cards out of a provider's
// machines.
type Availability int

const (
	Unavailable Availability = iota // certainly not
	Unknown                         // no source tells
	Available
)

// String returns the word for people.
func (a Availability) String() string {
	switch a {
	case Unavailable:
		return "no"
	case Available:
		return "yes"
	}
	return "unknown"
}

// A Route is what is known about one kind of channel at one provider.
type Route struct {
	Availability Availability
	Reader       string // who can read what comes out, and how; empty if that is not known
}

// SerialPort is the kind of channel that is a console with a device: a serial port
// besides the system console.
const SerialPort = "console,device"

// ChannelKinds returns the kinds of channels that [Provider.Route] knows: the types
// of a policy, and [SerialPort].
func ChannelKinds() []string { return slices.Clone(channelKinds) }

var channelKinds = []string{
	policy.ChannelVirtio, policy.ChannelConsole, SerialPort, policy.ChannelFile, policy.ChannelOpenStack, policy.ChannelSSHBanner, policy.ChannelHTTP,
}

// Route returns what is known about a kind of channel at the provider. At a provider
// that is not in the table, and for a kind that is not, it is [Unknown].
func (p Provider) Route(kind string) Route {
	if r, ok := everywhere[kind]; ok {
		return r
	}
	if r, ok := routes[p.Name][kind]; ok {
		return r
	}
	return Route{Availability: Unknown}
}

// everywhere needs nothing of a provider.
var everywhere = map[string]Route{
	policy.ChannelSSHBanner: {Available, "any client that reaches sshd; recipients must be post-quantum"},
	policy.ChannelHTTP:      {Available, "a server or a bucket of yours, by HTTPS"},
}

// routes are the rest. What is not here is not known. The sources are docs/hosts, and
// the documentation and source that those pages name.
var routes = map[string]map[string]Route{
	// Machines of your own.
	"nocloud": ownHost("the host, by the socket of the port", "the log file that you give to the serial port", "the log file that you give to the second serial port",
		"the host, from the disk or by the guest agent"),
	"proxmox": ownHost("the host, by the socket in args", "qm terminal, started before the machine", "qm terminal --iface serial1, started before the machine",
		"the host, by the guest agent"),

	// Plain VPSs: no port to the host, and a metadata service that only answers. Whether
	// the consoles of Linode, UpCloud and Vultr keep a log is not established.
	"digitalocean": vps(true),
	"hetzner":      vps(true),
	"linode":       vps(false),
	"upcloud":      vps(false),
	"vultr":        vps(false),

	"ec2": {
		policy.ChannelConsole:   {Available, "aws ec2 get-console-output: the last 64 KB"},
		policy.ChannelOpenStack: notOpenStack,
	},
	"gcp": {
		policy.ChannelConsole:   {Available, "gcloud compute instances get-serial-port-output: the last 1 MB"},
		SerialPort:              {Available, "gcloud compute instances get-serial-port-output --port 2: the last 1 MB"},
		policy.ChannelOpenStack: notOpenStack,
	},
	"openstack": {
		policy.ChannelConsole:   {Available, "openstack console log show"},
		policy.ChannelOpenStack: {Available, "nova get-password; one card in the life of an instance, for one X25519 recipient or two"},
	},
	"azure":    {policy.ChannelOpenStack: notOpenStack},
	"scaleway": {policy.ChannelOpenStack: notOpenStack},
	"vmware":   {policy.ChannelOpenStack: notOpenStack},
}

var notOpenStack = Route{Availability: Unavailable}

func ownHost(virtio, console, serial, file string) map[string]Route {
	return map[string]Route{
		policy.ChannelVirtio:    {Available, virtio},
		policy.ChannelConsole:   {Available, console},
		SerialPort:              {Available, serial},
		policy.ChannelFile:      {Available, file},
		policy.ChannelOpenStack: notOpenStack,
	}
}

func vps(screenOnly bool) map[string]Route {
	r := map[string]Route{
		policy.ChannelVirtio:    {Availability: Unavailable},
		policy.ChannelFile:      {Unavailable, "only root, from a rescue system"},
		policy.ChannelOpenStack: notOpenStack,
	}
	if screenOnly {
		r[policy.ChannelConsole] = Route{Unavailable, "a screen in the panel, without a log"}
		r[SerialPort] = Route{Availability: Unavailable}
	}
	return r
}

// aliases are other names of providers.
var aliases = map[string]string{
	"akamai": "linode", "aws": "ec2", "gce": "gcp", "hcloud": "hetzner", "libvirt": "nocloud", "qemu": "nocloud",
}

// builders are Packer's builders whose images run at one provider. The image of
// another one, such as qemu or null, can run anywhere.
var builders = map[string]string{
	"azure-arm": "azure", "azure-chroot": "azure", "digitalocean": "digitalocean", "googlecompute": "gcp", "hcloud": "hetzner", "ibmcloud-vpc": "ibm",
	"linode": "linode", "openstack": "openstack", "oracle-oci": "oracle", "proxmox-clone": "proxmox", "proxmox-iso": "proxmox", "scaleway": "scaleway",
	"upcloud": "upcloud", "vsphere-clone": "vmware", "vsphere-iso": "vmware", "vultr": "vultr",
}

// FindBuilder returns the provider whose images a builder of Packer makes.
func FindBuilder(builder string) (Provider, bool) {
	name := builders[builder]
	if strings.HasPrefix(builder, "amazon-") {
		name = "ec2"
	}
	if name == "" {
		return Provider{}, false
	}
	return FindProvider(name)
}
