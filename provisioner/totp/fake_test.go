// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/agentbin"
)

// fakeAgents stand for the embedded agents.
type fakeAgents map[string]string

func (f fakeAgents) Archs() []string {
	var archs []string
	for arch := range f {
		archs = append(archs, arch)
	}
	slices.Sort(archs)
	return archs
}

func (f fakeAgents) Agent(goarch string) ([]byte, error) {
	bin, ok := f[goarch]
	if !ok {
		return nil, agentbin.ErrNoArch
	}
	return []byte(bin), nil
}

var bothAgents = fakeAgents{"amd64": "agent for amd64", "arm64": "agent for arm64"}

// recordingUI keeps what was said.
type recordingUI struct {
	packersdk.Ui // anything else than Say panics

	mu   sync.Mutex
	said []string
}

func (u *recordingUI) Say(s string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.said = append(u.said, s)
}

func (u *recordingUI) Sayf(format string, args ...any) { u.Say(fmt.Sprintf(format, args...)) }

func (u *recordingUI) all() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return strings.Join(u.said, "\n")
}

// answer is how the fake guest answers one command.
type answer struct {
	stdout, stderr string
	status         int
	err            error         // of Start itself
	hang           chan struct{} // the command ends when it is closed
}

// op is one operation that was asked of the communicator.
type op struct {
	kind string // run or upload
	what string // the command, or the path
	data string // of an upload
	mode os.FileMode
}

// fakeComm records every operation and answers by script. It has no downloads
// and no directories: the provisioner needs none.
type fakeComm struct {
	packersdk.Communicator

	mu  sync.Mutex
	ops []op

	probe, bake, report, remove answer
	upload                      func(path string) error
	onRun                       func(command string)
}

const goodProbe = `TOTP-PROBE-BEGIN
system=Linux
machine=x86_64
uid=0
sudo=root
run=yes
dir=/tmp/totp.AbCdEf1234
error=
os=debian 12
TOTP-PROBE-END
`

func newFakeComm() *fakeComm {
	return &fakeComm{
		probe:  answer{stdout: goodProbe},
		bake:   answer{stdout: "bake: packages\nbake: done\n" + doneMark + "0\n"},
		report: answer{stdout: `{"version": 1}` + "\n"},
	}
}

func (c *fakeComm) Start(ctx context.Context, cmd *packersdk.RemoteCmd) error {
	c.mu.Lock()
	c.ops = append(c.ops, op{kind: "run", what: cmd.Command})
	c.mu.Unlock()
	if c.onRun != nil {
		c.onRun(cmd.Command)
	}
	var a answer
	switch {
	case strings.Contains(cmd.Command, "mktemp"):
		a = c.probe
	case strings.HasPrefix(cmd.Command, "rm -rf"):
		a = c.remove
	case strings.Contains(cmd.Command, "/bake"):
		a = c.bake
	case strings.Contains(cmd.Command, "/report"):
		a = c.report
	default:
		return fmt.Errorf("fake: unexpected command %q", cmd.Command)
	}
	if a.err != nil {
		return a.err
	}
	go func() {
		if a.hang != nil {
			<-a.hang
		}
		io.WriteString(cmd.Stdout, a.stdout)
		io.WriteString(cmd.Stderr, a.stderr)
		cmd.SetExited(a.status)
	}()
	return nil
}

func (c *fakeComm) Upload(path string, r io.Reader, fi *os.FileInfo) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	o := op{kind: "upload", what: path, data: string(data)}
	if fi != nil {
		o.mode = (*fi).Mode()
		if (*fi).Size() != int64(len(data)) {
			return errors.New("fake: announced another size")
		}
	}
	c.mu.Lock()
	c.ops = append(c.ops, o)
	c.mu.Unlock()
	if c.upload != nil {
		return c.upload(path)
	}
	return nil
}

// kinds returns the operations in short, as "upload totp-agent".
func (c *fakeComm) kinds() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, o := range c.ops {
		name := o.what[strings.LastIndexByte(o.what, '/')+1:]
		switch {
		case strings.Contains(o.what, "mktemp"):
			name = "probe"
		case strings.HasPrefix(o.what, "rm -rf"):
			name = "remove"
		}
		out = append(out, o.kind+" "+strings.Trim(name, "'"))
	}
	return out
}

func (c *fakeComm) find(t *testing.T, kind string) op {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range c.ops {
		if o.kind+" "+o.what[strings.LastIndexByte(o.what, '/')+1:] == kind {
			return o
		}
	}
	t.Fatalf("no operation %q", kind)
	return op{}
}

// prepared returns a provisioner ready to run with the given keys.
func prepared(t *testing.T, raw map[string]any) *Provisioner {
	t.Helper()
	p := &Provisioner{agents: bothAgents}
	if raw == nil {
		raw = map[string]any{}
	}
	if err := p.Prepare(raw); err != nil {
		t.Fatal(err)
	}
	return p
}
