// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package packer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/tool"
)

// Source is this plugin's address in required_plugins.
const Source = "github.com/packer-plugin-totp/totp"

const qemuSource = "github.com/hashicorp/qemu"

// Packer is a Packer program with plugins and configuration of its own. Its
// methods may be called from several goroutines, installing aside.
type Packer struct {
	Program string // path
	Version string // as "1.15.0"

	tools tools
	home  string
}

// Find returns a Packer that keeps plugins and configuration in home, a directory
// of the caller's. module is the top directory of this module and cache its
// .cache directory. Building Packer takes minutes, once; log is told.
func Find(ctx context.Context, module, cache, home string, log io.Writer) (*Packer, error) {
	p := &Packer{tools: tools{module: module, cache: cache, log: log}, home: home}
	for _, dir := range []string{p.plugins(), p.config()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	if name, err := exec.LookPath("packer"); err == nil {
		text, err := askVersion(ctx, name)
		if err == nil && newEnough(text) {
			p.Program, p.Version = name, text
			return p, nil
		}
	}
	name, err := p.tools.build(ctx, "github.com/hashicorp/packer")
	if err != nil {
		return nil, err
	}
	text, err := askVersion(ctx, name)
	if err != nil {
		return nil, err
	}
	p.Program, p.Version = name, text
	return p, nil
}

// Install installs the plugin program under a source address.
func (p *Packer) Install(ctx context.Context, program, source string) error {
	return p.Run(ctx, p.home, io.Discard, "plugins", "install", "--path", program, source)
}

// InstallQEMU installs the QEMU plugin that the machine's user has, the newest that
// Packer takes; otherwise the pinned one, which it builds where it is not cached.
func (p *Packer) InstallQEMU(ctx context.Context) error {
	for _, name := range installed(qemuSource, oldestQEMU) {
		err := p.Install(ctx, name, qemuSource)
		if err == nil || ctx.Err() != nil {
			return err
		}
		fmt.Fprintf(p.tools.log, "the installed %s is not taken: %v\n", filepath.Base(name), err)
	}
	name, err := p.tools.build(ctx, "github.com/hashicorp/packer-plugin-qemu")
	if err != nil {
		return err
	}
	return p.Install(ctx, name, qemuSource)
}

// Run runs a packer command in a directory. What it prints goes to out; the
// error of a command that fails carries the end of it. When ctx ends, Packer is
// interrupted and has a minute to clean up.
func (p *Packer) Run(ctx context.Context, dir string, out io.Writer, args ...string) error {
	return p.run(ctx, dir, out, p.environ(), args...)
}

// RunLogged is Run with Packer's own log, and its plugins', in a file.
func (p *Packer) RunLogged(ctx context.Context, dir, log string, out io.Writer, args ...string) error {
	return p.run(ctx, dir, out, append(p.environ(), "PACKER_LOG=1", "PACKER_LOG_PATH="+log), args...)
}

func (p *Packer) run(ctx context.Context, dir string, out io.Writer, environ []string, args ...string) error {
	cmd := exec.CommandContext(ctx, p.Program, args...)
	cmd.Dir = dir
	cmd.Env = environ
	// Ctrl-C must not reach it twice, once by the terminal: then it drops
	// everything instead of cleaning up. As a terminal does, the signal goes to the
	// whole group: the first of Packer's two processes ignores it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGINT) }
	cmd.WaitDelay = time.Minute
	last := &tool.Tail{Max: 4000}
	cmd.Stdout = io.MultiWriter(out, last)
	cmd.Stderr = cmd.Stdout
	err := child.Run(cmd, syscall.SIGTERM) // which the first process hands on
	if ctx.Err() != nil {
		err = errors.Join(ctx.Err(), err)
	}
	if err != nil {
		return fmt.Errorf("packer %s: %w\n%s", args[0], err, strings.TrimSpace(last.String()))
	}
	return nil
}

func (p *Packer) plugins() string { return filepath.Join(p.home, "plugins") }
func (p *Packer) config() string  { return filepath.Join(p.home, "config") }

func (p *Packer) environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PACKER_") && !strings.HasPrefix(v, "PKR_VAR_") {
			env = append(env, v)
		}
	}
	return append(env,
		"PACKER_PLUGIN_PATH="+p.plugins(),
		"PACKER_CONFIG_DIR="+p.config(),
		"PACKER_CONFIG="+filepath.Join(p.config(), "none.json"),
		"PACKER_CACHE_DIR="+filepath.Join(p.home, "cache"),
		"PACKER_NO_COLOR=1",
		"CHECKPOINT_DISABLE=1",
	)
}
