// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
)

// shellComm runs commands in a real shell of this machine, in an environment
// where all programs that tell about the machine, or could change it, are fakes.
type shellComm struct {
	packersdk.Communicator
	shell string
	path  string
}

func (c shellComm) Start(ctx context.Context, cmd *packersdk.RemoteCmd) error {
	run := exec.Command(c.shell, "-c", cmd.Command)
	run.Env = []string{"PATH=" + c.path}
	run.Stdout, run.Stderr = cmd.Stdout, cmd.Stderr
	if err := run.Start(); err != nil {
		return err
	}
	go func() {
		_ = run.Wait()
		cmd.SetExited(run.ProcessState.ExitCode())
	}()
	return nil
}

func (c shellComm) Upload(path string, r io.Reader, fi *os.FileInfo) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644) // as a communicator that ignores the mode
}

// shells returns the shells of this machine that a guest's user could have.
func shells(t *testing.T) []string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("guests have a POSIX shell")
	}
	var found []string
	for _, name := range []string{"sh", "dash", "bash", "zsh", "fish", "tcsh", "busybox"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if name == "busybox" {
			link := filepath.Join(t.TempDir(), "sh")
			if err := os.Symlink(path, link); err != nil {
				t.Fatal(err)
			}
			path = link
		}
		found = append(found, path)
	}
	if len(found) == 0 {
		t.Skip("there is no sh on this machine")
	}
	return found
}

// fakePrograms makes a directory with the given scripts and the real programs
// that the probe needs besides, and returns it as a PATH.
func fakePrograms(t *testing.T, scripts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if script == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"sh", "mktemp", "chmod", "rm", "true"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skip(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestShell runs the whole provisioning with the commands as they are, in each
// shell that this machine has.
func TestShell(t *testing.T) {
	var (
		linux  = `case $1 in -s) echo Linux;; -m) echo aarch64;; esac`
		noSudo = ""
		sudo   = `[ "$1" = -n ] && shift; exec "$@"`
		asks   = `echo "sudo: a password is required" >&2; exit 1`
		agent  = "#!/bin/sh\n" + `[ "$1" = selftest ] && { echo "selftest: $*"; exit 0; }; [ "$*" = "clean --report" ] && echo "{}" || echo "bake: $1 $2 $(while read -r l; do case $l in issuer*) echo "$l";; esac; done <"$3")"` + "\n"
	)
	for _, tt := range []struct {
		name, uname, id, sudo, agent string
		want                         error
		says                         string
	}{
		{"root", linux, "echo 0", noSudo, agent, nil, "bake: bake --policy issuer: Example"},
		{"user with sudo", linux, "echo 1000", sudo, agent, nil, "bake: bake --policy issuer: Example"},
		{"user whose sudo asks", linux, "echo 1000", asks, agent, ErrNoSudo, ""},
		{"user without sudo", linux, "echo 1000", noSudo, agent, ErrNoSudo, ""},
		{"not Linux", "echo Darwin", "echo 0", noSudo, agent, ErrNotLinux, ""},
		{"user with sudo, self-test", linux, "echo 1000", sudo, agent, nil, "selftest: selftest\n"},
		{"skip it", linux, "echo 1000", sudo, agent, nil, "selftest: selftest --skip"},
		{"self-test fails", linux, "echo 0", noSudo, "#!/bin/sh\n[ $1 = bake ] || { echo a row; exit 1; }\n", ErrSelfTest, "a row"},
		{"self-test is refused", linux, "echo 0", noSudo, "#!/bin/sh\n[ $1 = bake ] || { echo a row; exit 2; }\n", ErrSelfTest, "a row"},
		{"agent fails", linux, "echo 0", noSudo, "#!/bin/sh\necho broken >&2; exit 1\n", ErrBake, "broken"},
		{"agent refuses", linux, "echo 0", noSudo, "#!/bin/sh\necho wrong >&2; exit 2\n", ErrRefused, "wrong"},
		{"agent of another machine", linux, "echo 0", noSudo, "\x7fELF of something else", ErrNotRun, ""},
	} {
		for _, shell := range shells(t) {
			t.Run(tt.name+"/"+filepath.Base(shell), func(t *testing.T) {
				folder := t.TempDir()
				p := &Provisioner{agents: fakeAgents{"arm64": tt.agent}}
				skip := strings.HasPrefix(tt.name, "skip")
				if err := p.Prepare(map[string]any{"remote_folder": folder, "issuer": "Example", "skip_selftest": skip}); err != nil {
					t.Fatal(err)
				}
				comm := shellComm{shell: shell, path: fakePrograms(t, map[string]string{
					"uname": tt.uname, "id": tt.id, "sudo": tt.sudo,
				})}
				ui := &recordingUI{}
				err := p.Provision(t.Context(), ui, comm, nil)
				if !errors.Is(err, tt.want) {
					t.Fatalf("error %v, want %v; said:\n%s", err, tt.want, ui.all())
				}
				if !strings.Contains(ui.all(), tt.says) {
					t.Errorf("not said: %q in\n%s", tt.says, ui.all())
				}
				left, err := os.ReadDir(folder)
				if err != nil || len(left) != 0 {
					t.Errorf("left on the guest: %v, %v", left, err)
				}
			})
		}
	}
}

// TestProbeDirectory: the directory is private, whatever the user's umask.
func TestProbeDirectory(t *testing.T) {
	sh := shells(t)[0]
	folder := t.TempDir()
	var out bytes.Buffer
	run := exec.Command(sh, "-c", "umask 000; "+probeCommand(folder, new(Provisioner).scripts()))
	run.Stdout = &out
	if err := run.Run(); err != nil {
		t.Fatal(err)
	}
	g, err := parseProbe(out.String(), folder)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"": 0o700 | os.ModeDir, "bake": 0o600, "report": 0o600} {
		st, err := os.Stat(filepath.Join(g.Dir, name))
		if err != nil {
			t.Error(err)
		} else if st.Mode() != want {
			t.Errorf("%q has mode %v, want %v", name, st.Mode(), want)
		}
	}
}

// FuzzProbe: whatever a guest answers, what is taken from it can be shown on a
// terminal and put into a command.
func FuzzProbe(f *testing.F) {
	f.Add(goodProbe, "/tmp")
	f.Add(strings.ReplaceAll(goodProbe, "\n", "\r\n"), "/tmp")
	f.Add("motd\n"+goodProbe+goodProbe, "/tmp")
	f.Add(strings.Replace(goodProbe, "dir=/tmp", "dir=", 1), "/")
	f.Fuzz(func(t *testing.T, out, folder string) {
		if !remoteFolder.MatchString(folder) {
			t.Skip()
		}
		g, err := parseProbe(out, folder)
		if err != nil {
			return
		}
		if g.Dir != "" && !remoteFolder.MatchString(g.Dir) {
			t.Errorf("dir %q", g.Dir)
		}
		for _, s := range []string{g.System, g.Arch, g.OS, g.Sudo, g.SudoSays} {
			if s != clean(s) {
				t.Errorf("%q cannot be shown", s)
			}
		}
	})
}
