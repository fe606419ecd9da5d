// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/systemd"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/templates"
)

// A Start is how systemd starts sshd by one unit, as its files say: all that is
// known without asking systemd.
type Start struct {
	Unit *systemd.Unit

	// Command is ExecStart as it is written. Args are sshd's arguments, in which
	// variables are replaced; nil where the command is not one of sshd's.
	Command string
	Args    []string

	// Options are those of Args that a variable gives, and OptionsFile where it is
	// set: the administrator's.
	Options     []string
	OptionsFile string
}

// sshServices are the units that start an sshd that stays: Debian's, and that of
// others.
var sshServices = []string{"ssh.service", "sshd.service"}

// StartOf reads how the machine's own unit starts sshd.
func StartOf(t *target.Target) (*Start, error) {
	for _, name := range sshServices {
		s, err := startBy(t, name)
		if err != nil || s.Unit.File != "" {
			return s, err
		}
	}
	return nil, fmt.Errorf("%s: missing: %w; reinstall openssh-server", strings.Join(sshServices, ", "), ErrUnit)
}

// startBy reads how a unit starts sshd.
func startBy(t *target.Target, name string) (*Start, error) {
	u, err := systemd.Load(t, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, ErrUnit, err)
	}
	s := &Start{Unit: u}
	if u.File == "" || u.Masked {
		return s, nil
	}
	var commands []string
	for _, c := range u.List("Service", "ExecStart") {
		commands = append(commands, c.Value)
	}
	s.Command = strings.Join(commands, "; ")
	env, err := u.Environment(t)
	if err != nil {
		return s, fmt.Errorf("%s: %w: %w", name, ErrUnit, err)
	}
	words := systemd.Split(s.Command)
	if len(commands) != 1 || len(words) == 0 || strings.TrimPrefix(words[0], "-") != target.SSHD {
		return s, nil
	}
	if strings.Contains(strings.ReplaceAll(s.Command, "%%", ""), "%") {
		return s, fmt.Errorf("%s: ExecStart=%s: a specifier: %w", name, s.Command, ErrUnit)
	}
	s.Args = systemd.Expand(words, env)[1:]
	for _, w := range words[1:] {
		if name, ok := strings.CutPrefix(w, "$"); ok {
			v := env[strings.Trim(name, "{}")]
			s.Options, s.OptionsFile = append(s.Options, systemd.Split(v.Value)...), v.File
		}
	}
	return s, nil
}

// ConfigArgs are the arguments that decide what sshd reads and does: those of the
// unit without what makes it stay, serve one connection, test or log elsewhere.
func (s *Start) ConfigArgs() []string {
	if s.Args == nil {
		return nil
	}
	options, rest := sshdOptions(s.Args)
	args := []string{}
	for _, o := range options {
		switch o.letter {
		case 'D', 'i', 'e', 'E', 'd', 'q', 't', 'T', 'G', 'C':
			continue
		}
		args = append(args, "-"+string(o.letter))
		if o.value != "" {
			args = append(args, o.value)
		}
	}
	return append(args, rest...)
}

// unitData is what the drop-in of a unit of sshd says.
func (f *facts) unitData(start string) templates.SSHUnit {
	return templates.SSHUnit{Program: start, Test: target.SSHD + " -t", Options: f.unitOptions(), Rest: f.unitRest()}
}

// unitRest are the last arguments of sshd. The last -f counts, and after
// "--" or an option without its value there would be one word too many for sshd
// to start: so no variable takes it away.
func (f *facts) unitRest() string { return f.sshdRest + " -f " + target.SSHDMain }

// wantedCommand is ExecStart of our drop-in.
func (f *facts) wantedCommand(start string) string {
	words := []string{start}
	for _, o := range f.unitOptions() {
		words = append(words, "-o", o)
	}
	return strings.Join(append(words, f.unitRest()), " ")
}

// An sshdOption is one option of sshd's command line.
type sshdOption struct {
	letter byte
	value  string
}

// withValue are the options of sshd that take a value, of all versions.
const withValue = "CEbcfghkopu"

// sshdOptions reads arguments as sshd's getopt(3) does. The rest begins at the
// first word that is no option, or is an option without its value.
func sshdOptions(args []string) (options []sshdOption, rest []string) {
	for i := 0; i < len(args); i++ {
		word := args[i]
		if len(word) < 2 || word[0] != '-' || word == "--" {
			return options, args[i:]
		}
		for j := 1; j < len(word); j++ {
			o := sshdOption{letter: word[j]}
			if !strings.Contains(withValue, word[j:j+1]) {
				options = append(options, o)
				continue
			}
			if o.value = word[j+1:]; o.value == "" {
				if i++; i == len(args) {
					return options, args[i-1:]
				}
				o.value = args[i]
			}
			options = append(options, o)
			break
		}
	}
	return options, nil
}

// optionProblems look at what the administrator adds to sshd's arguments.
func (f *facts) optionProblems(s *Start) (ps problems) {
	options, rest := sshdOptions(s.Options)
	add := func(what, fix string, degraded bool) {
		ps = append(ps, problem{id: "ssh-options", path: s.OptionsFile, what: what, err: ErrUnit, fix: fix, degraded: degraded})
	}
	const stops = "remove it: sshd does not start with it"
	if len(rest) > 0 {
		add(fmt.Sprintf("%q: unexpected argument or missing value", strings.Join(rest, " ")), stops, false)
	}
	for _, o := range options {
		flag := "-" + string(o.letter)
		switch o.letter {
		case 't', 'T', 'G', 'V', 'C', 'd', 'i', 'R', '?':
			add(fmt.Sprintf("%q: sshd ends, or serves one connection only", flag), "remove it", false)
		case 'f':
			if o.value != target.SSHDMain {
				add(fmt.Sprintf("%q: has no effect: sshd is started with -f %s", flag+" "+o.value, target.SSHDMain),
					fmt.Sprintf("remove it, and put the line \"Include %s\" into %s", o.value, target.SSHDConfig), true)
			}
		case 'o':
			keyword, args := target.SSHDDirective(o.value)
			i := slices.IndexFunc(auth, func(s setting) bool { return strings.EqualFold(s.keyword, keyword) })
			switch {
			case keyword == "include" || keyword == "match":
				add(fmt.Sprintf("%q: not allowed on the command line", flag+" "+o.value), stops, false)
			case i >= 0 && !slices.ContainsFunc(f.auth(), func(s setting) bool {
				return strings.EqualFold(s.keyword, keyword) && strings.EqualFold(strings.Join(args, " "), s.value)
			}):
				add(fmt.Sprintf("%q: has no effect: the policy decides about %s", flag+" "+o.value, auth[i].keyword), "remove it", true)
				ps[len(ps)-1].overridden = true
			}
		}
	}
	return ps
}
