// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/child"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/login"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/packer"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/report"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/tool"
	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/vm"
)

// Lab has what images and instances are made with.
type Lab struct {
	Module  string // top directory of this module
	Work    string // for everything that is made
	System  vm.System
	Image   string // disk that Packer has built, after [Lab.Bake]
	Issuer  string
	Base    vm.Base
	Accel   vm.Accel
	Packer  *packer.Packer
	Report  *report.Reporter
	totpctl string

	// PullPlug ends the build without a shutdown, so that the image is cleaned at
	// its first boot.
	PullPlug bool

	// Firewall runs on the machine of the build, and so on instances. Nil: none.
	Firewall *Firewall
}

// PluginProgram and the other names are what `make build` writes, below the top
// directory.
const (
	pluginProgram  = "packer-plugin-totp"
	totpctlProgram = "bin/totpctl"
)

// NewLab returns a lab that keeps everything in the existing directory work.
// Packer and the base image are built where the cache does not have them. The
// plugin and totpctl are those that `make build` has left.
func NewLab(ctx context.Context, system vm.System, module, cache, work string, r *report.Reporter) (*Lab, error) {
	l := &Lab{System: system, Module: module, Work: work, Issuer: "Example Hosting", Report: r, totpctl: filepath.Join(module, totpctlProgram)}
	// Compiling keeps all processors busy, and making the image hardly one.
	made := make(chan error, 1)
	go func() (err error) {
		defer func() { made <- err }()
		l.Base, err = vm.BuildBase(ctx, system, cache, r.Lines(""))
		return err
	}()
	stop := r.Busy("getting ready", nil)
	err := errors.Join(l.findPacker(ctx, cache), <-made)
	stop()
	if err != nil {
		return nil, err
	}
	l.Accel = vm.ProbeAccel(ctx, l.Base)
	r.Sayf("base image: %s, virtual machines run by %s", system.Name, map[vm.Accel]string{
		vm.KVM: "KVM", vm.TCG: "emulation (no working KVM here)"}[l.Accel])
	return l, nil
}

func (l *Lab) findPacker(ctx context.Context, cache string) error {
	p, err := packer.Find(ctx, l.Module, cache, filepath.Join(l.Work, "packer"), l.Report.Lines(""))
	if err != nil {
		return err
	}
	if err := p.InstallQEMU(ctx); err != nil {
		return err
	}
	building.Lock()
	defer building.Unlock()
	if err := p.Install(ctx, filepath.Join(l.Module, pluginProgram), packer.Source); err != nil {
		return err
	}
	l.Report.Sayf("Packer %s (%s), the plugin installed by packer plugins install --path", p.Version, p.Program)
	l.Packer = p
	return nil
}

// building is held while programs are written, or copied, by one of several labs.
var building sync.Mutex

// BuildPrograms runs make build.
func BuildPrograms(ctx context.Context, module string, r *report.Reporter) error {
	building.Lock()
	defer building.Unlock()
	defer r.Busy("make build", nil)()
	return run(ctx, module, "make", "--no-print-directory", "build")
}

// Example is the directory of the template that [Lab.Bake] builds.
func (l *Lab) Example() string { return filepath.Join(l.Module, "examples", "qemu-debian") }

// Bake validates the example's template and builds the image with it.
func (l *Lab) Bake(ctx context.Context) error {
	key, err := login.NewKey(l.Work, "build_key")
	if err != nil {
		return err
	}
	sum, err := sha256File(l.Base.Disk)
	if err != nil {
		return err
	}
	var vars []string
	for _, v := range l.bakeVars(sum, key.File) {
		vars = append(vars, "-var", v)
	}
	template, err := l.template()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(l.Work, "packer.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	for _, verb := range []string{"validate", "build"} {
		l.Report.Sayf("$ packer %s examples/qemu-debian", verb)
		stop := l.Report.Busy("packer "+verb, func() string { return lastLine(l.buildConsole()) })
		args := append(append([]string{verb}, vars...), template)
		err := l.Packer.Run(ctx, l.Work, io.MultiWriter(log, l.Report.Lines("")), args...)
		stop()
		if err != nil {
			return errors.Join(err, l.lastWords())
		}
	}
	l.Image = filepath.Join(l.imageDir(), l.imageName()+".qcow2")
	info, err := os.Stat(l.Image)
	if err != nil {
		return err
	}
	l.Report.Sayf("the image: %s, %d MB", l.Image, info.Size()>>20)
	return nil
}

// bakeVars are the variables of the template.
func (l *Lab) bakeVars(sum, key string) []string {
	accelerator, model := "none", "qemu64"
	if l.Accel == vm.KVM {
		accelerator, model = "kvm", "host"
	}
	shutdown := "sudo shutdown -P now"
	if l.PullPlug {
		shutdown = ""
	}
	return []string{
		"shutdown_command=" + shutdown,
		"base_image=" + l.Base.Disk, "base_checksum=sha256:" + sum,
		"kernel=" + l.Base.Kernel, "initrd=" + l.Base.Initrd, "kernel_args=" + vm.KernelArgs,
		"accelerator=" + accelerator, "cpu_model=" + model, fmt.Sprintf("cpus=%d", l.Accel.CPUs()),
		"image_name=" + l.imageName(), "build_key=" + key, "issuer=" + l.Issuer,
		"output_directory=" + l.imageDir(), "report=" + l.BuildReport(),
		"console_log=" + l.buildConsole(),
	}
}

// BuildFiles are what the build has left on this machine beside the image.
func (l *Lab) BuildFiles() []string {
	return []string{filepath.Join(l.Work, "packer.log"), l.BuildReport(), l.buildConsole()}
}

func (l *Lab) imageName() string    { return l.System.File + "-totp" }
func (l *Lab) imageDir() string     { return filepath.Join(l.Work, "image") }
func (l *Lab) buildConsole() string { return filepath.Join(l.Work, "build-console.log") }

// Totpctl runs totpctl in an empty home, with an input, and returns its standard
// output and what it said of it. The error carries the latter.
func (l *Lab) Totpctl(ctx context.Context, input string, args ...string) (out []byte, said string, err error) {
	cmd := exec.CommandContext(ctx, l.totpctl, args...)
	cmd.Dir = l.Work
	cmd.Env = []string{"HOME=" + l.Work, "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(input)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	if out, err = cmd.Output(); err != nil {
		err = fmt.Errorf("totpctl %s: %w\n%s", args[0], err, strings.TrimSpace(complaints.String()))
	}
	return out, complaints.String(), err
}

// BuildReport is the file in which the provisioner says what it has baked.
func (l *Lab) BuildReport() string { return filepath.Join(l.Work, "totp-report.json") }

// run runs a program in a directory; the error carries what it said.
func run(ctx context.Context, dir, name string, args ...string) error {
	_, err := output(ctx, dir, name, args...)
	return err
}

// output runs a program in a directory and returns its standard output. The
// error carries its standard error: standard output can be a card.
func output(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := child.Run(cmd, syscall.SIGTERM); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", filepath.Base(name), errors.Join(ctx.Err(), err), strings.TrimSpace(complaints.String()))
	}
	return []byte(out.String()), nil
}

func sha256File(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// lastWords tells how the console of the build's machine ended, nil if there was none.
func (l *Lab) lastWords() error {
	data, err := os.ReadFile(l.buildConsole())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	last := &tool.Tail{Max: 4000}
	_, _ = last.Write(data) // never fails
	return fmt.Errorf("the console of the build's machine ended with\n%s", last)
}

// lastLine returns the last line of a file that is being written.
func lastLine(name string) string {
	data, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	lines := strings.Split(strings.TrimRight(string(data), "\r\n"), "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}
