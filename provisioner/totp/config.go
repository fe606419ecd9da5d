// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config,User,Channel,SSHD,Clean

package totp

import (
	"github.com/hashicorp/packer-plugin-sdk/common"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"
)

// Config is the provisioner's block. The keys of the policy mean what they mean
// in a policy file, and have the same defaults.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// A file that holds the whole policy in YAML, for those with many templates.
	// Neither a key of the policy nor a `user` or `channel` block can stand beside
	// it.
	PolicyFile string `mapstructure:"policy_file"`

	// Who issues the codes, as the authenticator app shows it: 1 to 64 printable
	// characters without a colon. Default: `SSH`.
	Issuer string `mapstructure:"issuer"`

	// Who is enrolled at an instance's first boot: `auto` (every account with a
	// login shell and a uid from 1000, and root where it has login keys on that
	// instance) or `listed` (only the accounts with a `user` block). Default:
	// `auto`.
	Enroll string `mapstructure:"enroll"`

	// An account and the recipients of its cards. Can be repeated. See
	// [User](#user-block).
	Users []User `mapstructure:"user"`

	// age recipients who can read the card of every user as well. Each card names
	// them. They alone enroll nobody.
	EscrowRecipients []string `mapstructure:"escrow_recipients"`

	// The layers that may name the recipients of a user: `image` (this block),
	// `vendor` (vendor-data), `instance` (user-data), and `authorized_keys`, which
	// seals to the SSH keys of a user for whom no recipient is named. Default:
	// `["image", "vendor", "instance"]`.
	RecipientsFrom []string `mapstructure:"recipients_from"`

	// The number of one-time backup codes of each user, from 1 to 10. Default: 8.
	BackupCodes int `mapstructure:"backup_codes"`

	// How many attempts a user has: `standard` (3 in 30 seconds) or `strict` (5 in
	// 300 seconds). Default: `standard`.
	RateLimit string `mapstructure:"rate_limit"`

	// When an envelope counts as delivered: `any` or `all` of the acknowledged
	// channels have taken it. Default: `any`.
	Require string `mapstructure:"require"`

	// A way for envelopes out of the instance. Can be repeated. See
	// [Channel](#channel-block). Default: `virtio`, `console` and `file`.
	Channels []Channel `mapstructure:"channel"`

	// The longest that the first try of a network channel waits, at random, so that
	// many instances started at once do not reach one server in the same second: a
	// number and one of s, m, h and d. Default: `5s`.
	Jitter string `mapstructure:"jitter"`

	// How long a sealed envelope stays on the instance for an owner who does not log in,
	// after it was delivered, or offered where no channel confirms. Default: `30d`.
	Keep string `mapstructure:"keep"`

	// What sshd demands, and of whom. See [SSHD](#sshd-block).
	SSHD *SSHD `mapstructure:"sshd"`

	// `auto` makes sure that a time service is installed and enabled, since the
	// codes depend on the clock; `none` leaves it alone. Default: `auto`.
	TimeSync string `mapstructure:"time_sync"`

	// `auto` lets SSH in and NTP out where ufw or firewalld is active, and touches
	// nothing elsewhere; `none` leaves the firewall alone. Default: `auto`.
	Firewall string `mapstructure:"firewall"`

	// What the image must not keep. See [Clean](#clean-block).
	Clean *Clean `mapstructure:"clean"`

	// `install` installs the PAM module from the distribution's repository.
	// `present` never touches the package manager, and fails where the module is
	// missing. Default: `install`.
	Packages string `mapstructure:"packages"`

	// Installs the module `totp` of cloud-init, so that user-data can say under a key
	// `totp` what they otherwise write by `write_files`. From version 23.4 on cloud-init
	// calls a boot with such user-data `degraded`. See
	// [Two ways](#two-ways-for-user-data). Default: `false`.
	CloudInitModule bool `mapstructure:"cloud_init_module"`

	// Installs the module, and names it in the image's `cloud_init_modules` as well, so
	// that cloud-init itself runs it. The list is that of this build: modules that an
	// update of cloud-init brings are not in it. Default: `false`, and a unit of ours
	// runs the module.
	CloudInitModuleListed bool `mapstructure:"cloud_init_module_listed"`

	// Bakes a system that nobody has tested this on as well: RHEL, Rocky and Alma from
	// version 9, Fedora from 41. The self-test is then not to be skipped. Default:
	// `false`.
	AllowUntestedSystem bool `mapstructure:"allow_untested_system"`

	// Leaves out the self-test, which logs in to the guest in every way that must
	// and must not work (one or two seconds). Systems that nobody has tested this on
	// get it all the same. Default: `false`.
	SkipSelftest bool `mapstructure:"skip_selftest"`

	// Leaves the guest uncleaned: host keys, machine-id, logs, the build's own
	// account. A machine that goes on running must not be cleaned: it would lose
	// everybody's login keys when it shuts down. So the builder `null`, which makes no
	// image, never cleans; run `totp-agent clean` there yourself before you take a
	// snapshot. Default: `false`.
	SkipClean bool `mapstructure:"skip_clean"`

	// The command that runs a script of ours on the guest as root, as the shell
	// provisioner has it. `{{ .Path }}` is the script, `{{ .Vars }}` the variables
	// PACKER_BUILD_NAME and PACKER_BUILDER_TYPE, and `{{ .Sudo }}` is true where the
	// user is not root. It is run twice: for the bake and for its report. Where sudo
	// asks for a password, use
	// `"echo 'password' | {{ .Vars }} sudo -S -E sh '{{ .Path }}'"`.
	// Default: `"{{ if .Sudo }}sudo -n {{ end }}sh '{{ .Path }}'"`.
	ExecuteCommand string `mapstructure:"execute_command"`

	// The directory on the guest in which the provisioner makes its own private
	// directory, removed at the end. Programs must be allowed to run from it (no
	// `noexec`). Default: `/tmp`.
	RemoteFolder string `mapstructure:"remote_folder"`

	// A file on this machine for the build report, a JSON document that says what
	// was baked. It holds no secrets. Default: the report stays on the guest only,
	// in /var/lib/totp-agent/report.json.
	Report string `mapstructure:"report"`

	ctx interpolate.Context
}

// User is an account of the instances and the recipients of its cards.
type User struct {
	// The account's name.
	Name string `mapstructure:"name" required:"true"`

	// age recipients, all of one class: `age1…` (X25519), `age1pq1…` (post-quantum
	// hybrid), `age1tag1…` or `age1tagpq1…` (hardware). Later layers can replace
	// them where `recipients_from` names the layer.
	Recipients []string `mapstructure:"recipients"`
}

// Channel is a way for envelopes out of the instance.
type Channel struct {
	// `virtio` (a virtio-serial port; the host's answer is the receipt), `console`
	// (numbered lines on the serial console), `file` (a directory on the
	// instance, to be picked up), `http` (a request to an HTTPS server of yours),
	// `openstack` (OpenStack's metadata service, one card an instance) or `ssh-banner`
	// (what sshd shows before a login, for post-quantum recipients).
	Type string `mapstructure:"type" required:"true"`

	// virtio: the name of the port. Default: `org.totp.enroll.0`.
	Port string `mapstructure:"port"`

	// console: a serial port in place of the system console, such as `/dev/ttyS1`.
	Device string `mapstructure:"device"`

	// http: where to send an envelope, an `https://` URL. `{id}` in its path becomes
	// the envelope's ID; there are `{user}`, `{instance_id}` and `{hostname}` as well.
	URL string `mapstructure:"url"`

	// http: `PUT` or `POST`. Default: `PUT`.
	Method string `mapstructure:"method"`

	// http: request headers. An image must not carry credentials, so that they are
	// refused here and belong into vendor-data or user-data.
	Headers map[string]string `mapstructure:"headers"`

	// http: `raw` (the binary envelope), `armored` (the envelope as text) or `json`.
	// Default: `raw`.
	Body string `mapstructure:"body"`

	// http: the text of the body `json`, with `{armored}` or `{base64}` in it. Refused
	// here, as `headers` are: without it, a text of ours is used.
	Template string `mapstructure:"template"`

	// http: the status codes that confirm the envelope. Default: all from 200 to 299.
	Success []int `mapstructure:"success"`

	// http: an absolute path on the instance, of the certificates to trust instead
	// of the system's.
	CAFile string `mapstructure:"ca_file"`

	// http: an absolute path on the instance, of a certificate to show to the server.
	// Refused here, as `headers` are.
	ClientCert string `mapstructure:"client_cert"`

	// http: an absolute path on the instance, of the certificate's key. Refused here,
	// as `headers` are.
	ClientKey string `mapstructure:"client_key"`

	// http: the key that signs each request, in the headers `X-Signature` (the body)
	// and `X-Totp-Signature` (request line, user and body). Refused here, as `headers`
	// are.
	HMACKey string `mapstructure:"hmac_key"`

	// http: `all`, or `one` for a URL that is good for one envelope only; the latter is
	// refused here, since all instances would share it. Default: `all`.
	Envelopes string `mapstructure:"envelopes"`

	// http, openstack: the only user whose envelopes go this way. Default: everybody's.
	User string `mapstructure:"user"`

	// ssh-banner: `post_quantum`, or `any` for envelopes of classic recipients as
	// well, which whoever keeps the banner can open once there is a quantum
	// computer. Default: `post_quantum`.
	Recipients string `mapstructure:"recipients"`
}

// SSHD is what sshd demands, and of whom.
type SSHD struct {
	// `compatible` (the keys that people have: RSA from 2048 bits, ECDSA, security
	// keys), `strict` (post-quantum key exchange, RSA from 3072 bits) or `distro`
	// (what sshd is built with). OpenSSH before 9.1 (Debian 11) cannot refuse RSA
	// keys for their size, and has no `strict`. Default: `compatible`.
	Algorithms string `mapstructure:"algorithms"`

	// Groups whose members log in with their key alone: for automation, which
	// cannot type a code. They are not enrolled.
	ExemptGroups []string `mapstructure:"exempt_groups"`

	// Accounts that log in with their key alone. They are not enrolled.
	ExemptUsers []string `mapstructure:"exempt_users"`

	// Networks in CIDR notation from which all users but root log in with the key
	// alone. Loopback ranges are refused.
	ExemptFrom []string `mapstructure:"exempt_from"`

	// `auto` (root logs in with key and code where it has login keys on the
	// instance), `totp` (root is enrolled as everybody else) or `deny`. Default:
	// `auto`.
	RootLogin string `mapstructure:"root_login"`

	// `deny` or `allow` forwarding of ports and sockets. Default: `deny`.
	TCPForwarding string `mapstructure:"tcp_forwarding"`
}

// Clean is what the image must not keep.
type Clean struct {
	// The account that the build logs in with. Its keys, password, sudo rights and
	// the account itself go with the image's first boot at the latest. Default: the
	// account that this build logs in with loses its keys and password, and stays.
	BuildUser string `mapstructure:"build_user"`
}
