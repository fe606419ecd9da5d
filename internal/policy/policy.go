// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package policy reads, checks and merges what an image promises: who is
// enrolled, to whom the cards are sealed, and how the envelopes leave.
//
// # Layers
//
// A policy has up to three layers: the image's own (written by bake), the
// provider's (vendor-data) and the instance's (user-data). What a later layer
// may change is one table, in layers.go. A layer that is malformed, or that asks
// for what it may not have, is refused as a whole and the layers below it hold.
//
// # Promises
//
// Every problem of a document is reported, not only the first, with the path of
// the field and, where it was read from YAML, with line and column. What may be
// a secret (a token, a header, parts of a URL, a private key in a wrong place) is
// never part of an error. An image's policy that carries a credential is an
// error, since everybody who starts the image could read it.
//
// # Limits
//
// The documents are a small part of YAML: one document in UTF-8 of at most 64
// KiB, without anchors, aliases, merge keys, tags and tabs. Keys are known by
// name and may be given once. Enumerations are words, so that a YAML 1.1 reader
// takes none of them for a boolean.
//
// The package touches no file, so that it works the same where a policy is
// written and where it is obeyed.
package policy

import (
	"slices"
)

// Version is the newest version of the policy's format that this package knows.
const Version = 1

// A Layer is where a policy comes from. Each layer stands above the ones before
// it: [Image], [Vendor], [Instance].
type Layer string

const (
	Image    Layer = "image"    // baked into the image
	Vendor   Layer = "vendor"   // the provider's, from vendor-data
	Instance Layer = "instance" // the owner's, from user-data
)

// File returns the name that errors give the layer's document.
func (l Layer) File() string {
	if l == Image {
		return "image.yaml"
	}
	return "totp-" + string(l) + ".yaml"
}

// The words of the enumerations.
const (
	EnrollAuto   = "auto"   // every account with a login shell and uid >= 1000, and root where it has login keys
	EnrollListed = "listed" // only those under users

	FromAuthorizedKeys = "authorized_keys" // in recipients_from: a user's own SSH keys, where no recipient is named

	RateStandard = "standard" // 3 attempts in 30 seconds
	RateStrict   = "strict"   // 5 attempts in 300 seconds

	RequireAny = "any" // delivered when one acknowledged channel has the envelope
	RequireAll = "all" // delivered when each of them has it

	PackagesInstall = "install" // install the PAM module
	PackagesPresent = "present" // never touch the package manager

	AlgorithmsCompatible = "compatible" // keys that people have, and clients of some years
	AlgorithmsStrict     = "strict"     // post-quantum key exchange, RSA from 3072 bits
	AlgorithmsDistro     = "distro"     // what sshd is built with

	RootAuto = "auto" // enrolled, and logs in with key and code, where it has login keys on the instance
	RootTOTP = "totp" // enrolled as everybody else
	RootDeny = "deny" // does not log in over SSH

	ForwardingDeny  = "deny"
	ForwardingAllow = "allow"

	TimeSyncAuto = "auto" // make sure that a time service is enabled
	TimeSyncNone = "none" // leave it alone

	FirewallAuto = "auto" // let SSH in and NTP out where ufw or firewalld is active
	FirewallNone = "none" // leave it alone

	ChannelVirtio    = "virtio"
	ChannelConsole   = "console"
	ChannelFile      = "file"
	ChannelHTTP      = "http"
	ChannelSSHBanner = "ssh-banner"
	ChannelOpenStack = "openstack"

	BannerPostQuantum = "post_quantum" // envelopes for post-quantum recipients only
	BannerAny         = "any"          // all envelopes

	BodyRaw     = "raw"     // the binary age file, application/vnd.age
	BodyArmored = "armored" // the armored one
	BodyJSON    = "json"    // a JSON text with the envelope in it

	EnvelopesAll = "all" // a channel for every envelope
	EnvelopesOne = "one" // a channel that takes one envelope in its life
)

// What holds where a policy says nothing.
const (
	DefaultIssuer      = "SSH"
	DefaultBackupCodes = 8
	DefaultPort        = "org.totp.enroll.0"
	DefaultMethod      = "PUT"
	DefaultJitter      = "5s"
	DefaultKeep        = "30d"

	// DefaultTemplate is the JSON text of an http channel that has none.
	DefaultTemplate = `{"id":"{id}","user":"{user}","instance_id":"{instance_id}","hostname":"{hostname}","envelope":"{armored}"}`
)

// MaxBackupCodes is how many backup codes an enrollment may have. It is the
// limit of google-authenticator(1).
const MaxBackupCodes = 10

// A Policy is one layer's document. A field's zero value means that the layer
// says nothing about it.
type Policy struct {
	Version          int       `yaml:"version,omitempty"`
	Issuer           string    `yaml:"issuer,omitempty"`
	Enroll           string    `yaml:"enroll,omitempty"`
	Users            []User    `yaml:"users,omitempty"`
	EscrowRecipients []string  `yaml:"escrow_recipients,omitempty"`
	RecipientsFrom   []string  `yaml:"recipients_from,omitempty"`
	BackupCodes      int       `yaml:"backup_codes,omitempty"`
	RateLimit        string    `yaml:"rate_limit,omitempty"`
	Require          string    `yaml:"require,omitempty"`
	Channels         []Channel `yaml:"channels,omitempty"`
	Jitter           string    `yaml:"jitter,omitempty"` // see [Duration]
	Keep             string    `yaml:"keep,omitempty"`
	SSHD             SSHD      `yaml:"sshd,omitempty"`
	TimeSync         string    `yaml:"time_sync,omitempty"`
	Firewall         string    `yaml:"firewall,omitempty"`
	Packages         string    `yaml:"packages,omitempty"`

	// CloudInitModule has the bake install cloud-init's module totp, which hands
	// the key totp of an instance's data to the agent. CloudInitModuleListed does
	// so as well, and names the module in cloud-init's own list.
	CloudInitModule       bool `yaml:"cloud_init_module,omitempty"`
	CloudInitModuleListed bool `yaml:"cloud_init_module_listed,omitempty"`

	Clean Clean `yaml:"clean,omitempty"`

	// Token is the enrollment token, 16 bytes in unpadded base64url. Only the
	// instance's layer has one.
	Token string `yaml:"token,omitempty" json:"-"`

	// File is the name of the document the policy was parsed from, if any.
	File string `yaml:"-"`

	// Notices are the unknown keys of a layer whose version is newer than
	// [Version]. They are to be reported; the rest of the layer holds.
	Notices Errors `yaml:"-" json:"-"`
}

// A User is an account to enroll, and the recipients its cards are sealed to.
type User struct {
	Name       string   `yaml:"name,omitempty"`
	Recipients []string `yaml:"recipients,omitempty"`
}

// SSHD says what sshd demands, and of whom. An exempt login needs its key alone:
// the exemption is for automation, which cannot type a code.
type SSHD struct {
	Algorithms    string   `yaml:"algorithms,omitempty"`
	ExemptGroups  []string `yaml:"exempt_groups,omitempty"`
	ExemptUsers   []string `yaml:"exempt_users,omitempty"`
	ExemptFrom    []string `yaml:"exempt_from,omitempty"` // networks in CIDR notation, RFC 4632
	RootLogin     string   `yaml:"root_login,omitempty"`
	TCPForwarding string   `yaml:"tcp_forwarding,omitempty"`
}

// Clean says what the image must not keep.
type Clean struct {
	// BuildUser is the account that the build logs in with. It goes with the
	// image's first boot.
	BuildUser string `yaml:"build_user,omitempty"`
}

// A Channel is a way for envelopes out of the instance. Which fields are used
// depends on Type: virtio has Port, console has Device, ssh-banner has Recipients, openstack has User,
// http the others.
type Channel struct {
	Type       string            `yaml:"type,omitempty"`
	Port       string            `yaml:"port,omitempty"`
	Device     string            `yaml:"device,omitempty"` // of console: a serial port in place of the system console
	URL        string            `yaml:"url,omitempty" json:"-"`
	Method     string            `yaml:"method,omitempty"`
	Headers    map[string]string `yaml:"headers,omitempty" json:"-"`
	Body       string            `yaml:"body,omitempty"`
	Template   string            `yaml:"template,omitempty" json:"-"`
	Success    []int             `yaml:"success,omitempty"`
	CAFile     string            `yaml:"ca_file,omitempty"`
	ClientCert string            `yaml:"client_cert,omitempty"` // a file on the instance, as is the key
	ClientKey  string            `yaml:"client_key,omitempty"`
	HMACKey    string            `yaml:"hmac_key,omitempty" json:"-"`
	Envelopes  string            `yaml:"envelopes,omitempty"`
	User       string            `yaml:"user,omitempty"`       // the only one whose envelopes go this way
	Recipients string            `yaml:"recipients,omitempty"` // of ssh-banner: whose envelopes are shown to everybody
}

// ChannelTypes returns the types of channels a policy may name, sorted.
func ChannelTypes() []string {
	return []string{ChannelConsole, ChannelFile, ChannelHTTP, ChannelOpenStack, ChannelSSHBanner, ChannelVirtio}
}

// TakesOne reports whether the channel takes one envelope in its life, so that
// it cannot carry the envelope of a reset after it has carried one.
func (c Channel) TakesOne() bool {
	return c.Envelopes == EnvelopesOne || c.Type == ChannelOpenStack
}

// WithDefaults returns a copy of p that says something about every key of an
// image's policy. It has no part of p in common, so either may be changed.
func (p *Policy) WithDefaults() *Policy {
	d := p.clone()
	fill(&d.Version, Version)
	fill(&d.Issuer, DefaultIssuer)
	fill(&d.Enroll, EnrollAuto)
	fill(&d.BackupCodes, DefaultBackupCodes)
	fill(&d.RateLimit, RateStandard)
	fill(&d.Require, RequireAny)
	fill(&d.SSHD.Algorithms, AlgorithmsCompatible)
	fill(&d.SSHD.RootLogin, RootAuto)
	fill(&d.SSHD.TCPForwarding, ForwardingDeny)
	fill(&d.Jitter, DefaultJitter)
	fill(&d.Keep, DefaultKeep)
	fill(&d.TimeSync, TimeSyncAuto)
	fill(&d.Firewall, FirewallAuto)
	fill(&d.Packages, PackagesInstall)
	d.CloudInitModule = d.CloudInitModule || d.CloudInitModuleListed
	if d.RecipientsFrom == nil {
		d.RecipientsFrom = []string{string(Image), string(Vendor), string(Instance)}
	}
	if d.Channels == nil {
		d.Channels = []Channel{{Type: ChannelVirtio}, {Type: ChannelConsole}, {Type: ChannelFile}}
	}
	for i := range d.Channels {
		d.Channels[i] = d.Channels[i].withDefaults()
	}
	return d
}

func (c Channel) withDefaults() Channel {
	switch c.Type {
	case ChannelVirtio:
		fill(&c.Port, DefaultPort)
	case ChannelSSHBanner:
		fill(&c.Recipients, BannerPostQuantum)
	case ChannelHTTP:
		fill(&c.Method, DefaultMethod)
		fill(&c.Body, BodyRaw)
		fill(&c.Envelopes, EnvelopesAll)
	}
	return c
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// String tells what kind of value this is and nothing of what is in it, so that
// a policy in a log line gives no token or header away.
func (p Policy) String() string { return "policy(" + p.File + ")" }

// GoString is as String.
func (p Policy) GoString() string { return p.String() }

// String returns the channel's type, and its port or device. URL and headers may hold secrets.
func (c Channel) String() string {
	if more := c.Port + c.Device; more != "" {
		return c.Type + ":" + more
	}
	return c.Type
}

// GoString is as String.
func (c Channel) GoString() string { return c.String() }

func (p *Policy) clone() *Policy {
	c := *p
	c.Users = slices.Clone(p.Users)
	for i, u := range c.Users {
		c.Users[i].Recipients = slices.Clone(u.Recipients)
	}
	c.EscrowRecipients = slices.Clone(p.EscrowRecipients)
	c.RecipientsFrom = slices.Clone(p.RecipientsFrom)
	c.Channels = cloneChannels(p.Channels)
	c.SSHD = p.SSHD.clone()
	c.Notices = slices.Clone(p.Notices)
	return &c
}

func (s SSHD) clone() SSHD {
	s.ExemptGroups = slices.Clone(s.ExemptGroups)
	s.ExemptUsers = slices.Clone(s.ExemptUsers)
	s.ExemptFrom = slices.Clone(s.ExemptFrom)
	return s
}
