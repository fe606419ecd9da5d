// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:generate go tool packer-sdc struct-markdown
//go:generate go tool packer-sdc mapstructure-to-hcl2 -type Config,User,Channel,DatasourceOutput

package userdata

import "github.com/hashicorp/packer-plugin-sdk/common"

// Config is the data source's block. The keys of the policy mean what they mean
// in a policy file.
type Config struct {
	common.PackerConfig `mapstructure:",squash"`

	// A file that holds the instance's policy in YAML. None of `issuer`,
	// `escrow_recipients`, `backup_codes`, `channel` and a user's `recipients` can
	// stand beside it; a `user` block beside it makes an account of a user of the
	// file.
	PolicyFile string `mapstructure:"policy_file"`

	// Who issues the codes, as the authenticator app shows it. Default: what the image
	// says.
	Issuer string `mapstructure:"issuer"`

	// A user who is enrolled. Can be repeated. See [User](#user-block).
	Users []User `mapstructure:"user"`

	// age recipients who can read the card of every user as well. Each card names
	// them.
	EscrowRecipients []string `mapstructure:"escrow_recipients"`

	// The number of one-time backup codes of each user, from 1 to 10. Default: what
	// the image says.
	BackupCodes int `mapstructure:"backup_codes"`

	// A way for envelopes out of the instance, besides those of the image. Can be
	// repeated. See [Channel](#channel-block).
	Channels []Channel `mapstructure:"channel"`

	// A document of your own that is merged into: its text, not a file's name. Use
	// `file("…")` for a file.
	Merge string `mapstructure:"merge"`

	// The provider that the instance runs at, as `totpctl user-data --for list` names
	// it: the document must keep its size limit, and with `image_report` a channel of the
	// image or the document must bring the card out of its machines. Default: any, with
	// 12 KiB, which fits everywhere.
	Provider string `mapstructure:"provider"`

	// Makes the provider's layer, for vendor-data. Default: `false`.
	Vendor bool `mapstructure:"vendor"`

	// Puts a token into the document, and makes the ticket by which `totpctl open
	// --ticket` recognises the cards of the instance. Default: `false`.
	Ticket bool `mapstructure:"ticket"`

	// How long the ticket waits for the first card of each user. Default: `168h`.
	TicketLifetime string `mapstructure:"ticket_lifetime"`

	// The file with the report of the image's bake, for the ticket and to check
	// whether the image takes the document at all.
	ImageReport string `mapstructure:"image_report"`
}

// User is a user who is enrolled, and an account if it has SSH keys.
type User struct {
	// The account's name.
	Name string `mapstructure:"name" required:"true"`

	// age recipients of the user's cards, all of one class. Default: what the image
	// says.
	Recipients []string `mapstructure:"recipients"`

	// Lines of public SSH keys. With any, cloud-init makes the account; without, it is
	// there already.
	SSHKeys []string `mapstructure:"ssh_keys"`

	// The account may become root without a password. Default: `false`.
	Sudo bool `mapstructure:"sudo"`

	// The account's login shell. Default: `/bin/bash`.
	Shell string `mapstructure:"shell"`
}

// Channel is a way for envelopes out of the instance. Those that carry
// credentials are for a policy file.
type Channel struct {
	// `virtio`, `console`, `file`, `openstack` or `ssh-banner`.
	Type string `mapstructure:"type" required:"true"`

	// virtio: the name of the port. Default: `org.totp.enroll.0`.
	Port string `mapstructure:"port"`

	// console: a serial port in place of the system console, such as `/dev/ttyS1`.
	Device string `mapstructure:"device"`
}

// DatasourceOutput is what the data source gives to a template.
type DatasourceOutput struct {
	// The document. It is sensitive where it has a token.
	UserData string `mapstructure:"user_data"`

	// The ticket, to be kept in a file: one line of JSON; empty without `ticket = true`.
	// It is sensitive: it names the users and who can read their cards.
	Ticket string `mapstructure:"ticket"`

	// The token in the document; empty where it has none. It is for a sensitive `local`
	// alone, see below.
	Token string `mapstructure:"token"`

	// What may keep users of the document from logging in, each with what to do about it,
	// as `totpctl user-data` prints it. They are in Packer's log (`PACKER_LOG=1`) too.
	Warnings []string `mapstructure:"warnings"`
}
