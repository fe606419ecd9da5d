// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package templates

// A Setting is one keyword of sshd_config(5).
type Setting struct {
	Keyword, Value string
	Why            string // a comment above it; empty for none
}

// SSHDConfig is the data of etc/ssh/sshd_config.d/00-00-totp.conf.
type SSHDConfig struct {
	System     string    // for whom the file was made: "Debian 12, OpenSSH 9.2"
	Auth       []Setting // who may log in, and how
	Session    []Setting // what a session may do, and limits
	Algorithms []Setting
	Exempt     []string  // criteria of Match lines: for these a key alone is enough
	MatchAll   []Setting // what no later Match block may change
	Notice     string    // an sshd configuration file to include, where it exists
}

// HostKeys is the data of etc/ssh/sshd_config.d/00-01-totp-hostkeys.conf.
type HostKeys struct {
	Keys []string // private key files, best first; none: the distribution's
}

// SSHUnit is the data of etc/systemd/system/ssh.service.d/00-totp.conf.
type SSHUnit struct {
	Program string   // sshd and its first arguments, as the distribution's unit starts it
	Options []string // settings as sshd's -o takes them
	Rest    string   // the arguments that the distribution's unit has after these
}

// PAMLine is the data of etc/pam.d/sshd.
type PAMLine struct {
	Module   string // file name of the module
	StateDir string // where each user's state file is
}

// Agent is the data of the agent's units.
type Agent struct {
	Program     string // the agent
	PAMStateDir string
	StateDir    string // absolute
	RunDir      string // relative to /run
	CleanMark   string // the file that says that an image is to be cleaned still
}
