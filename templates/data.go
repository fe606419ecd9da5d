// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package templates

import (
	"strconv"
	"strings"
)

// A Setting is one keyword of sshd_config(5).
type Setting struct {
	Keyword, Value string
	Why            string // a comment above it; empty for none
}

// SSHDMain is the data of etc/ssh/sshd_totp.conf.
type SSHDMain struct {
	Login  string // the file with the settings of the login
	Config string // the administrator's
}

func (m SSHDMain) values() map[string]string {
	return map[string]string{"Login": m.Login, "Config": m.Config}
}

// SSHDConfig is the data of etc/ssh/sshd_config.d/00-00-totp.conf, of which
// etc/totp-agent has a copy.
type SSHDConfig struct {
	Main, Login string // the main file of sshd, and the copy that it includes

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
		"Main":       c.Main,
		"Login":      c.Login,
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
	Test    string   // sshd as it tests its configuration
	Options []string // settings as sshd's -o takes them
	Rest    string   // the arguments after these
}

func (u SSHUnit) values() map[string]string {
	return map[string]string{"Program": u.Program, "Test": u.Test, "Options": each(u.Options, " -o ", ""), "Rest": u.Rest}
}

// PAMBlock is the data of etc/pam.d/sshd: the lines that authenticate a login.
type PAMBlock struct {
	Module   string // file name of the module that asks for the code
	StateDir string // where each user's state file is
	Tally    string // where the tries of each user are counted
	Tries    int    // so many are allowed
	Seconds  int    // in so many seconds, and no more until so many have passed
	Options  string // further options of the module that counts
}

func (b PAMBlock) values() map[string]string {
	s := strconv.Itoa(b.Seconds)
	options := "fail_interval=" + s + " unlock_time=" + s + " even_deny_root root_unlock_time=" + s
	if b.Options != "" {
		options += " " + b.Options
	}
	return map[string]string{
		"Module": b.Module, "StateDir": b.StateDir, "Tally": b.Tally, "Deny": strconv.Itoa(b.Tries), "Options": options,
	}
}

// PAMService is the data of usr/lib/pam.d/sshd.debian and sshd.redhat: a whole
// service file, for where the distribution's is lost.
type PAMService struct {
	Block string // whole lines
}

func (s PAMService) values() map[string]string { return map[string]string{"Block": s.Block} }

// Agent is the data of the agent's units, and of cloud-init's module.
type Agent struct {
	Program     string // the agent
	PAMStateDir string
	Tally       string   // where pam_faillock counts
	StateDir    string   // absolute
	RunDir      string   // relative to /run
	PAMDirs     []string // the directories of PAM's service files and modules
	CleanMark   string   // the file that says that an image is to be cleaned still
	Module      string   // cloud-init's module of ours
	SSHService  string   // the unit that starts sshd
	SSHSocket   string   // the one that starts an sshd for each connection
}

func (a Agent) values() map[string]string {
	return map[string]string{
		"Program": a.Program, "PAMStateDir": a.PAMStateDir, "Tally": a.Tally, "StateDir": a.StateDir, "RunDir": a.RunDir, "CleanMark": a.CleanMark,
		"PAMDirs": each(a.PAMDirs, "PathModified=", "\n"), "Module": a.Module, "SSHService": a.SSHService, "SSHSocket": a.SSHSocket,
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
