// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/hashicorp/packer-plugin-sdk/template/interpolate"
)

// How the steps after the probe can fail.
var (
	ErrUpload    = errors.New("upload failed")
	ErrBake      = errors.New("bake failed")
	ErrSelfTest  = errors.New("self-test failed")
	ErrRefused   = errors.New("agent refused the policy")
	ErrNotRun    = errors.New("agent could not be run")
	ErrLost      = errors.New("connection to the guest was lost")
	ErrClean     = errors.New("guest could not be cleaned")
	ErrBadReport = errors.New("report is not a JSON document of at most 1 MiB")
	ErrNoReport  = errors.New("report is not there")
	ErrLeftOver  = errors.New("private directory could not be removed")
)

// maxReport bounds the report in bytes.
const maxReport = 1 << 20

func (r *run) uploadAgent(context.Context) error {
	start := time.Now()
	bin, err := r.agents.Agent(r.guest.Arch)
	if err != nil {
		return err
	}
	if err := r.upload("totp-agent", bin, 0o700); err != nil {
		return err
	}
	say(r.ui, start, "agent uploaded, %.1f MB", float64(len(bin))/1e6)
	return nil
}

func (r *run) uploadPolicy(context.Context) error {
	start := time.Now()
	if err := r.upload("policy.yaml", r.policy, 0o600); err != nil {
		return err
	}
	say(r.ui, start, "policy uploaded, %d bytes", len(r.policy))
	return nil
}

// upload puts a file into the private directory. The size and mode go along, so
// that the communicator neither spools it nor leaves it open to others.
func (r *run) upload(name string, data []byte, mode fs.FileMode) error {
	var fi os.FileInfo = fileInfo{name: name, size: int64(len(data)), mode: mode}
	if err := r.comm.Upload(r.guest.Dir+"/"+name, bytes.NewReader(data), &fi); err != nil {
		return fmt.Errorf("%s: %w: %w", name, ErrUpload, err)
	}
	return nil
}

func (r *run) bake(ctx context.Context) error {
	start := time.Now()
	what, done := "baking, and proving it by logins", "baked, and proven by logins"
	if r.config.SkipSelftest {
		what, done = "baking", "baked"
	}
	r.ui.Say("totp: " + what)
	out, errOut := &progress{ui: r.ui, hide: doneMark}, &progress{ui: r.ui}
	status, err := r.asRoot(ctx, "bake", out, errOut)
	out.flush()
	errOut.flush()
	if err != nil {
		return fmt.Errorf("bake: %w", err)
	}
	if err := bakeError(status, out.hidden, errOut.tail, out.tail); err != nil {
		return err
	}
	say(r.ui, start, "%s", done)
	return nil
}

// bakeError turns the end of the agent's run into an error. A communicator can
// lose its connection and still report exit status 0, so that nothing but the
// script's own last word counts as success.
func bakeError(status int, mark string, stderr, stdout []string) error {
	said := ""
	if lines := lastWords(stderr, stdout); len(lines) > 0 {
		said = ":\n  " + strings.Join(lines, "\n  ")
	}
	switch {
	case status == 0 && mark == doneMark+"0":
		return nil
	case status == 0, status == packersdk.CmdDisconnect:
		return fmt.Errorf("bake: %w; is the guest rebooting, or its sshd restarting?%s", ErrLost, said)
	case mark == "":
		advice := cmp.Or(sudoAdvice(said), "execute_command must run {{ .Path }} as root")
		return fmt.Errorf("bake: %w (exit status %d); %s%s", ErrNotRun, status, advice, said)
	case status == 1:
		return fmt.Errorf("bake: %w%s", ErrBake, said)
	case status == 2:
		return fmt.Errorf("bake: %w%s", ErrRefused, said)
	case status == selfTestFailed:
		return fmt.Errorf("bake: %w%s", ErrSelfTest, said)
	case status == 126, status == 127:
		return fmt.Errorf("bake: %w (exit status %d)%s", ErrNotRun, status, said)
	default:
		return fmt.Errorf("bake: %w (exit status %d)%s", ErrBake, status, said)
	}
}

// lastWords returns the lines that tell why a run ended: the agent's errors if
// there are any, else what came last. Stdout counts where a pseudo-terminal has
// merged the streams. The progress has been said already.
func lastWords(stderr, stdout []string) []string {
	var lines []string
	for _, line := range slices.Concat(stderr, stdout) {
		if said, ok := strings.CutPrefix(line, "totp-agent: "); ok {
			lines = append(lines, said)
		}
	}
	for _, all := range [][]string{stderr, stdout} {
		if len(lines) == 0 {
			lines = all
		}
	}
	return lines
}

// fetchReport cleans the guest, unless the block says otherwise, and reads the
// report, which is one of both.
func (r *run) fetchReport(ctx context.Context) error {
	start := time.Now()
	switch {
	case r.cleans():
		r.ui.Say("totp: cleaning")
	case !r.config.SkipClean:
		r.ui.Say("totp: not cleaning: the builder null makes no image. Before you take a snapshot of this machine, run there: totp-agent clean")
	}
	out, errOut := capped{limit: maxReport}, &progress{ui: r.ui}
	status, err := r.asRoot(ctx, "report", &out, errOut)
	errOut.flush()
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if status != 0 && r.cleans() && status != 126 && status != 127 {
		said := ""
		if lines := lastWords(errOut.tail, nil); len(lines) > 0 {
			said = ":\n  " + strings.Join(lines, "\n  ")
		}
		return fmt.Errorf("clean: %w (exit status %d)%s", ErrClean, status, said)
	}
	if status != 0 || out.Len() == 0 {
		return fmt.Errorf("report: %w (exit status %d): %s", ErrNoReport, status, strings.Join(errOut.tail, "; "))
	}
	data := bytes.ReplaceAll(out.Bytes(), []byte("\r\n"), []byte("\n")) // a pseudo-terminal's line ends
	if out.over || !json.Valid(data) {
		return fmt.Errorf("report: %w", ErrBadReport)
	}
	r.sayDeferred(data)
	if r.config.Report == "" {
		say(r.ui, start, "report read, %d bytes", len(data))
		return nil
	}
	if err := writeFile(r.config.Report, data); err != nil {
		return fmt.Errorf("report: %q: %w: %w", r.config.Report, ErrReport, err)
	}
	say(r.ui, start, "report written to %s, %d bytes", r.config.Report, len(data))
	return nil
}

// sayDeferred tells what the image gets rid of later, in one line.
func (r *run) sayDeferred(report []byte) {
	var v struct {
		Clean struct{ Deferred []string }
	}
	if json.Unmarshal(report, &v) != nil || len(v.Clean.Deferred) == 0 {
		return
	}
	var words []string
	for _, w := range v.Clean.Deferred {
		words = append(words, clean(w))
	}
	r.ui.Say("totp:   deferred to the shutdown, or the first boot: " + strings.Join(words, ", "))
}

// remove takes the private directory away, also when the build was cancelled.
func (r *run) remove(ctx context.Context) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	var out, errOut capped
	status, err := execute(ctx, r.comm, "rm -rf "+r.guest.Dir, &out, &errOut)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", r.guest.Dir, ErrLeftOver, err)
	}
	if status != 0 {
		return fmt.Errorf("%s: %w (exit status %d): %s", r.guest.Dir, ErrLeftOver, status, lastLine(errOut.String()))
	}
	say(r.ui, start, "private directory removed")
	return nil
}

// asRoot runs one of the scripts that the probe wrote, by execute_command.
func (r *run) asRoot(ctx context.Context, script string, out, errOut writer) (int, error) {
	data := make(map[string]any, len(r.generated)+3)
	maps.Copy(data, r.generated)
	data["Path"] = r.guest.Dir + "/" + script
	data["Sudo"] = !r.guest.Root
	data["Vars"] = fmt.Sprintf("PACKER_BUILD_NAME=%s PACKER_BUILDER_TYPE=%s ",
		quote(r.config.PackerBuildName), quote(r.config.PackerBuilderType))
	ictx := r.config.ctx
	ictx.Data = data
	command, err := interpolate.Render(r.config.ExecuteCommand, &ictx)
	if err != nil {
		// The text may hold a password, so that neither it nor the template's error,
		// which quotes it, is passed on.
		return 0, fmt.Errorf("execute_command: %w", ErrExecuteCommand)
	}
	return execute(ctx, r.comm, command, out, errOut)
}

// quote makes one word of s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }

// writeFile writes a whole file or none.
func writeFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".totp-report-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// fileInfo is what a communicator wants to know of a file that is not on disk.
type fileInfo struct {
	name string
	size int64
	mode fs.FileMode
}

func (f fileInfo) Name() string       { return f.name }
func (f fileInfo) Size() int64        { return f.size }
func (f fileInfo) Mode() fs.FileMode  { return f.mode }
func (f fileInfo) ModTime() time.Time { return time.Time{} }
func (f fileInfo) IsDir() bool        { return false }
func (f fileInfo) Sys() any           { return nil }
