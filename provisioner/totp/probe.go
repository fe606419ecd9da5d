// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/agentbin"
)

// What the probe can find wrong with a guest.
var (
	ErrNoAnswer  = errors.New("communicator answered nothing that we asked for")
	ErrNotLinux  = errors.New("guest is not Linux")
	ErrNoSudo    = errors.New("guest's user cannot become root")
	ErrNoFolder  = errors.New("guest has no place for our files")
	ErrNoExecute = errors.New("guest forbids to run programs in remote_folder")
)

// A guest is what the probe learnt. Its strings come from the guest and are
// checked before they are used or shown.
type guest struct {
	System    string // uname -s
	Arch      string // in the words of GOARCH
	OS        string // ID and VERSION_ID of os-release, as "debian 12"
	Root      bool   // the communicator's user is root
	Sudo      string // root | yes | refused | missing
	SudoSays  string // why it refused
	CanRun    bool   // programs in Dir can be run
	Dir       string // our private directory, 0700
	Remaining string // what mktemp had to say
}

// The guest's names of architectures, as uname -m has them.
var goarch = map[string]string{
	"x86_64": "amd64", "amd64": "amd64",
	"aarch64": "arm64", "arm64": "arm64",
}

const (
	reportPath = "/var/lib/totp-agent/report.json" // as internal/target has it; a test compares
	doneMark   = "totp-bake-exit="

	// selfTestFailed is the script's exit status where the bake went well and the
	// self-test did not.
	selfTestFailed = 3
)

// probe asks all that must be known about the guest in one command, and makes
// our private directory in it. It returns a guest along with an error where that
// directory is there to be removed.
func (p *Provisioner) probe(ctx context.Context, ui packersdk.Ui, comm packersdk.Communicator) (*guest, error) {
	start := time.Now()
	var out, errOut capped
	status, err := execute(ctx, comm, probeCommand(p.config.RemoteFolder, p.scripts()), &out, &errOut)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	g, err := parseProbe(out.String(), p.config.RemoteFolder)
	if err != nil {
		if last := lastLine(errOut.String()); last != "" {
			err = fmt.Errorf("%w; its last words were %q", err, last)
		}
		return nil, fmt.Errorf("probe: %w (exit status %d)", err, status)
	}
	if err := p.check(g); err != nil {
		if g.Dir == "" {
			g = nil
		}
		return g, err
	}
	who := "as root"
	if !g.Root {
		who = "with sudo"
	}
	say(ui, start, "guest is %s on %s, %s", g.OS, g.Arch, who)
	return g, nil
}

// check tells what makes a guest unfit.
func (p *Provisioner) check(g *guest) error {
	if g.System != "Linux" {
		return fmt.Errorf("guest: %q: %w; the provisioner totp makes Linux images", g.System, ErrNotLinux)
	}
	if !archKnown(g.Arch, p.agents.Archs()) {
		return fmt.Errorf("guest: %q: %w; there is one for %s", g.Arch, agentbin.ErrNoArch, strings.Join(p.agents.Archs(), " and "))
	}
	// An execute_command of the user's own may know a way that the probe does not.
	if p.config.ExecuteCommand == defaultExecuteCommand {
		switch g.Sudo {
		case "refused":
			return fmt.Errorf("guest: %w: sudo says %q; %s", ErrNoSudo, g.SudoSays, cmp.Or(sudoAdvice(g.SudoSays), sudoUnknown))
		case "missing":
			return fmt.Errorf("guest: %w: there is no sudo; install it, connect as root, or set execute_command", ErrNoSudo)
		}
	}
	if g.Dir == "" {
		return fmt.Errorf("remote_folder: %q: %w: mktemp says %q", p.config.RemoteFolder, ErrNoFolder, g.Remaining)
	}
	if !g.CanRun {
		return fmt.Errorf("remote_folder: %q: %w; it may be mounted noexec: set remote_folder to another directory", p.config.RemoteFolder, ErrNoExecute)
	}
	return nil
}

func archKnown(arch string, archs []string) bool {
	for _, a := range archs {
		if a == arch {
			return true
		}
	}
	return false
}

// scripts are what root runs on the guest. $d is our private directory there.
type scripts struct{ bake, selfTest, report string }

func (p *Provisioner) scripts() scripts {
	s := scripts{
		bake:     "$d/totp-agent bake --policy $d/policy.yaml",
		selfTest: "$d/totp-agent selftest",
		report:   "$d/totp-agent clean --report",
	}
	if p.config.AllowUntestedSystem {
		s.bake += " --allow-untested-system"
	}
	if p.config.SkipSelftest {
		s.selfTest += " --skip" // the agent knows whether this system may do without
	}
	if !p.cleans() {
		s.report = "cat " + reportPath
	}
	return s
}

// cleans tells whether the guest becomes an image. What the builder null is given
// is a machine, which may be in use.
func (p *Provisioner) cleans() bool {
	return !p.config.SkipClean && p.config.PackerBuilderType != "null"
}

// probeCommand returns the probe: one line for any login shell, with the work
// done by sh. The marks are put together on the guest, so that a shell that only
// echoes the command does not look like an answer. The script has neither single
// quotes nor exclamation marks, which csh takes for history even when quoted.
//
// Who cancels a build is not waited for by Packer: the bake ends without a listener
// for its last word then, and takes our directory away itself.
func probeCommand(folder string, s scripts) string {
	script := strings.Join([]string{
		`umask 077; LC_ALL=C; export LC_ALL`,
		`d=$(mktemp -d ` + strings.TrimSuffix(folder, "/") + `/totp.XXXXXXXXXX 2>&1) && [ -d "$d" ] || { e=$d; d=; }`,
		`x=no; if [ -n "$d" ]; then ` +
			`printf "#\041/bin/sh\nchmod 0700 $d/totp-agent && ` + s.bake + `\nr=\$?\n` +
			`[ \$r = 0 ] && { ` + s.selfTest + ` || r=` + strconv.Itoa(selfTestFailed) + `; }\ntrap \"\" PIPE\necho ` + doneMark + `\$r || rm -rf $d\nexit \$r\n" >"$d/bake"; ` +
			`printf "#\041/bin/sh\nexec ` + s.report + `\n" >"$d/report"; ` +
			`printf "#\041/bin/sh\n" >"$d/try"; chmod 0700 "$d/try"; "$d/try" 2>/dev/null && x=yes; rm -f "$d/try"; fi`,
		`u=$(id -u); if [ "$u" = 0 ]; then s=root; elif w=$(sudo -n true 2>&1 </dev/null); then s=yes; w=; ` +
			`elif command -v sudo >/dev/null 2>&1; then s=refused; else s=missing; w=; fi`,
		`m=PROBE; echo "TOTP-$m-BEGIN"`,
		`echo "system=$(uname -s)"; echo "machine=$(uname -m)"; echo "uid=$u"; echo "sudo=$s"; echo "run=$x"; echo "dir=$d"; echo "error=$e"`,
		`printf "%s\n" "$w" | while read -r l; do printf "says=%s\n" "$l"; done`,
		`for f in /etc/os-release /usr/lib/os-release; do if [ -r "$f" ]; then (ID=; VERSION_ID=; . "$f"; echo "os=$ID $VERSION_ID"); break; fi; done`,
		`echo "TOTP-$m-END"`,
	}, "; ")
	return "sh -c '" + script + "'"
}

// Beyond these words nothing of an answer is shown or used.
var (
	ourDir = regexp.MustCompile(`^totp\.[A-Za-z0-9]{6,32}$`)
	word   = regexp.MustCompile(`^[A-Za-z0-9._ -]{1,64}$`)
)

// parseProbe reads the probe's answer, wherever in the output it is.
func parseProbe(out, folder string) (*guest, error) {
	out = strings.ReplaceAll(out, "\r", "")
	_, answer, ok := strings.Cut("\n"+out, "\nTOTP-PROBE-BEGIN\n")
	if !ok {
		return nil, fmt.Errorf("%w; the provisioner totp needs a communicator that runs commands, and a POSIX shell on the guest", ErrNoAnswer)
	}
	if answer, _, ok = strings.Cut(answer, "\nTOTP-PROBE-END\n"); !ok {
		return nil, fmt.Errorf("%w: the answer was cut short", ErrNoAnswer)
	}
	fields := make(map[string]string)
	var says []string
	for line := range strings.Lines(answer) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		switch {
		case ok && key == "says":
			says = append(says, value)
		case ok:
			fields[key] = value
		}
	}
	for _, key := range []string{"system", "machine", "uid", "sudo"} {
		if !word.MatchString(fields[key]) {
			return nil, fmt.Errorf("%w: %s is %q", ErrNoAnswer, key, fields[key])
		}
	}
	g := &guest{
		System:    fields["system"],
		Arch:      fields["machine"],
		OS:        strings.TrimSpace(fields["os"]),
		Root:      fields["uid"] == "0",
		Sudo:      fields["sudo"],
		SudoSays:  sudoSays(says),
		CanRun:    fields["run"] == "yes",
		Dir:       fields["dir"],
		Remaining: fields["error"],
	}
	if arch, ok := goarch[g.Arch]; ok {
		g.Arch = arch
	}
	if !word.MatchString(g.OS) {
		g.OS = "an unnamed system"
	}
	// The name is used in later commands, one of them rm -rf: it must be ours.
	if g.Dir != "" {
		name, ok := strings.CutPrefix(g.Dir, strings.TrimSuffix(folder, "/")+"/")
		if !ok || !ourDir.MatchString(name) {
			return nil, fmt.Errorf("%w: dir is %q", ErrNoAnswer, g.Dir)
		}
	}
	return g, nil
}
