// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package templates

import (
	"path"
	"strings"
)

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

func (c SSHDConfig) values() map[string]string {
	v := map[string]string{
		"System":     c.System,
		"Auth":       settings(c.Auth),
		"Session":    settings(c.Session),
		"Algorithms": settings(c.Algorithms),
		"Notice":     c.Notice,
		"Exempt":     "",
		"MatchAll":   "", // the comments stand above, in Auth
	}
	for _, s := range c.MatchAll {
		v["MatchAll"] += "\t" + s.line()
	}
	if len(c.Algorithms) > 0 {
		v["Algorithms"] += "\n"
	}
	if len(c.Exempt) > 0 {
		v["Exempt"] = "# Automation cannot type a code: for these a key alone is enough.\n" +
			each(c.Exempt, "Match ", "\n\tAuthenticationMethods publickey\n") + "\n"
	}
	return v
}

// HostKeys is the data of etc/ssh/sshd_config.d/00-01-totp-hostkeys.conf.
type HostKeys struct {
	Keys []string // private key files, best first; none: the distribution's
}

func (h HostKeys) values() map[string]string {
	if len(h.Keys) == 0 {
		return map[string]string{"Keys": "# The policy leaves this to the distribution.\n"}
	}
	return map[string]string{"Keys": each(h.Keys, "HostKey ", "\n")}
}

// SSHUnit is the data of etc/systemd/system/ssh.service.d/00-totp.conf, and of
// the same file for ssh@.service.
type SSHUnit struct {
	Program string   // sshd and its first arguments, as the distribution's unit starts it
	Options []string // settings as sshd's -o takes them
	Rest    string   // the arguments that the distribution's unit has after these
}

func (u SSHUnit) values() map[string]string {
	return map[string]string{"Program": u.Program, "Options": each(u.Options, " -o ", ""), "Rest": u.Rest}
}

// PAMLine is the data of etc/pam.d/sshd.
type PAMLine struct {
	Module   string // file name of the module
	StateDir string // where each user's state file is
}

func (l PAMLine) values() map[string]string {
	return map[string]string{"Module": l.Module, "StateDir": l.StateDir}
}

// Agent is the data of the agent's units, and of cloud-init's module.
type Agent struct {
	Program     string // the agent
	PAMStateDir string
	StateDir    string // absolute
	RunDir      string // relative to /run
	SendPath    string // the socket of the process that speaks to the network
	CleanMark   string // the file that says that an image is to be cleaned still
	Module      string // cloud-init's module of ours
	SSHService  string // the unit that starts sshd
	SSHSocket   string // the one that starts an sshd for each connection
}

func (a Agent) values() map[string]string {
	return map[string]string{
		"Program": a.Program, "PAMStateDir": a.PAMStateDir, "StateDir": a.StateDir, "RunDir": a.RunDir, "CleanMark": a.CleanMark,
		"StateName": strings.TrimPrefix(a.StateDir, "/var/lib/"), "SendPath": a.SendPath, "SendDir": path.Dir(a.SendPath), "Module": a.Module, "SSHService": a.SSHService, "SSHSocket": a.SSHSocket,
	}
}

func (s Setting) line() string { return s.Keyword + " " + s.Value + "\n" }

// settings returns one line for each setting, after that of its comment.
func settings(list []Setting) string {
	var b strings.Builder
	for _, s := range list {
		if s.Why != "" {
			b.WriteString("# " + s.Why + "\n")
		}
		b.WriteString(s.line())
	}
	return b.String()
}

// each puts every item between before and after.
func each(items []string, before, after string) string {
	var b strings.Builder
	for _, item := range items {
		b.WriteString(before + item + after)
	}
	return b.String()
}
