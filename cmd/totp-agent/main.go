// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Totp-agent bakes SSH logins with key and one-time code into an image, and
// enrolls the users of each instance at its boot.
//
// The exit status is 0 when done, 1 when something failed (for status and check: when
// something needs attention), 2 for a usage error or an invalid policy, and 3 if check has
// a critical finding. A command writes its messages to standard error and its result to standard output. Neither ever
// carries a secret.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/enroll"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func main() {
	// A new directory has its mode from its first moment on, whatever the umask of a
	// build is.
	syscall.Umask(0o022)
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// An env is what a command works with.
type env struct {
	context.Context
	out, err io.Writer
	root     string
}

// A verb is one command of the agent. setup declares the flags and returns the function
// that handles the remaining arguments.
type verb struct {
	name, args, help string
	rooted           bool // takes --root
	sensitive        bool // handles secrets, or what leads to them
	setup            func(*flag.FlagSet) func(env, []string) error
}

var verbs = []verb{
	{"bake", "--policy FILE | --again [--allow-untested-system]", "set up this system as an image whose logins require key and code", true, false, bakeVerb},
	{"check", "[--json | --repair]", "report what has changed since the bake; exit 1 if the login is degraded, 3 if it is not safe", true, false, checkVerb},
	{"selftest", "[--json] [--skip]", "verify with real logins by temporary users that key and code are required", false, false, selftestVerb},
	{"clean", "[--report | --check]", "remove the data of the build machine from this image", true, false, cleanVerb},
	{"enroll", "", "enroll the users of this instance (at each boot, before sshd)", false, true, enrollVerb},
	{"layer", "", "read the instance's key totp on standard input, from cloud-init's module", false, true, layerVerb},
	{"deliver", "[--again]", "deliver pending envelopes by the channels", false, true, deliverVerb},
	{"send", "", "read one envelope on standard input and send it over the network; deliver runs it (needs no privileges)", false, true, sendVerb},
	{"logins", "", "retire envelopes of users who have logged in with a code; log rate limits and a full disk (after each login)", false, true, loginsVerb},
	{"status", "[--json]", "print users, envelopes and problems with the commands that end them; exit 1 if there is a problem", false, true, statusVerb},
	{"reset", "[--adopt-machine] [--recipient R]... USER", "give a user a new secret and envelope; the old secret stops working", true, true, resetVerb},
	{"version", "", "print the version", false, false, versionVerb},
}

// errUsage marks a usage error: exit status 2.
var errUsage = errors.New("usage error")

func run(args []string, out, errw io.Writer) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "-h" || args[0] == "--help" {
		w := out
		if len(args) == 0 {
			w = errw
		}
		usage(w)
		if len(args) == 0 {
			return 2
		}
		return 0
	}
	for _, v := range verbs {
		if v.name == args[0] {
			return v.run(args[1:], out, errw)
		}
	}
	fmt.Fprintf(errw, "totp-agent: %q: unknown command; run: totp-agent help\n", args[0])
	return 2
}

func (v verb) run(args []string, out, errw io.Writer) int {
	if v.sensitive {
		undumpable()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A lost connection takes the terminal, or who reads the pipe, along. What has
	// begun goes on to its end: half a bake is worse than one that nobody sees.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGPIPE)
	e := env{Context: ctx, out: out, err: errw, root: "/"}
	fs := flag.NewFlagSet("totp-agent "+v.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	if v.rooted {
		fs.StringVar(&e.root, "root", "/", "work on the system mounted at `DIR`")
	}
	do := v.setup(fs)
	rest, err := parse(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(out, "usage: totp-agent %s %s\n\n%s\n\n", v.name, v.args, v.help)
		fs.SetOutput(out)
		fs.PrintDefaults()
		return 0
	case err != nil:
		err = fmt.Errorf("%w: %w; usage: totp-agent %s %s", errUsage, err, v.name, v.args)
	default:
		err = do(e, rest)
	}
	if err == nil {
		return 0
	}
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(errw, "totp-agent: %s\n", strings.TrimSuffix(line, "\n"))
	}
	return exitStatus(err)
}

// parse reads flags before, between and after the arguments.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
}

func exitStatus(err error) int {
	var wrong policy.Errors
	if errors.Is(err, errUsage) || errors.As(err, &wrong) || enroll.IsPolicyError(err) {
		return 2
	}
	if errors.Is(err, errCritical) {
		return 3
	}
	return 1
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: totp-agent COMMAND [FLAGS] [ARGUMENTS]\n\n")
	for _, v := range verbs {
		fmt.Fprintf(w, "  %-8s %s\n", v.name, v.help)
	}
	fmt.Fprint(w, "\nRun totp-agent COMMAND --help for the flags of a command. Run all commands as root.\n")
}

// none refuses arguments if the command takes none.
func none(args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %q: this command takes no arguments", errUsage, args[0])
	}
	return nil
}

// openNone is open for a command that takes no arguments.
func (e env) openNone(args []string) (*target.Target, error) {
	if err := none(args); err != nil {
		return nil, err
	}
	return e.open()
}

// open returns the system that a command works on.
func (e env) open() (*target.Target, error) {
	if os.Geteuid() != 0 {
		return nil, fmt.Errorf("uid %d: this needs root; use sudo", os.Geteuid())
	}
	return target.Open(e.root)
}
