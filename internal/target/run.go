// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"time"
)

// A Runner runs commands of the guest. Tests put their own in place of the
// real one with [Target.SetRunner].
type Runner interface {
	Run(ctx context.Context, argv []string) (stdout, stderr []byte, err error)
}

// A CommandError is a command of the guest that failed.
type CommandError struct {
	Argv   []string
	Code   int    // exit status; -1 where it did not run or died of a signal
	Stderr string // its last lines
	Err    error
}

func (e *CommandError) Error() string {
	s := fmt.Sprintf("%s: %v", strings.Join(e.Argv, " "), e.Err)
	if e.Stderr != "" {
		s += ": " + strings.ReplaceAll(e.Stderr, "\n", " | ")
	}
	return s
}

func (e *CommandError) Unwrap() error { return e.Err }

// SetRunner replaces what runs the guest's commands.
func (t *Target) SetRunner(r Runner) { t.runner = r }

// Run runs a command of the guest, in a chroot where the target is not the
// running machine, and returns what it wrote to its standard output. A
// failure is a [*CommandError]. Nothing is ever run by a shell.
func (t *Target) Run(ctx context.Context, argv ...string) ([]byte, error) {
	stdout, _, err := t.Output(ctx, argv...)
	return stdout, err
}

// Output is Run for those who want the standard error as well.
func (t *Target) Output(ctx context.Context, argv ...string) (stdout, stderr []byte, err error) {
	stdout, stderr, err = t.runner.Run(ctx, argv)
	if err == nil {
		return stdout, stderr, nil
	}
	ce := &CommandError{Argv: argv, Code: -1, Stderr: lastLines(stderr, 8), Err: err}
	if ee, ok := errors.AsType[*exec.ExitError](err); ok {
		ce.Code = ee.ExitCode()
	}
	return stdout, stderr, ce
}

// execRunner runs commands for real.
type execRunner struct{ t *Target }

func (r execRunner) Run(ctx context.Context, argv []string) (stdout, stderr []byte, err error) {
	prog, err := r.t.lookPath(argv[0])
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(ctx, prog, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir = "/"
	cmd.Env = []string{
		"PATH=" + commandDirs,
		"HOME=/root",
		"LC_ALL=C.UTF-8",
		"DEBIAN_FRONTEND=noninteractive",
	}
	cmd.WaitDelay = 5 * time.Second
	if !r.t.Live() {
		if runtime.GOOS != "linux" {
			return nil, nil, errors.ErrUnsupported
		}
		cmd.SysProcAttr = chroot(r.t.dir)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	return out.Bytes(), errs.Bytes(), err
}

// lookPath finds a command in the guest: the host's own search path may lead
// to programs that the guest does not have.
func (t *Target) lookPath(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return name, nil
	}
	for _, dir := range strings.Split(commandDirs, ":") {
		p := path.Join(dir, name)
		if fi, err := t.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", exec.ErrNotFound
}

// HasCommand tells whether the guest has a command of this name.
func (t *Target) HasCommand(name string) bool {
	p, err := t.lookPath(name)
	return err == nil && t.IsRegular(p)
}

func lastLines(b []byte, n int) string {
	lines := strings.Split(strings.TrimRight(string(b), "\r\n "), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
