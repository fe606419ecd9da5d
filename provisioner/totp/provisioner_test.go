// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package totp

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/agentbin"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// maxOperations is how often the provisioner may bother the communicator: each
// costs a round trip or more on every build.
const maxOperations = 6

func TestProvision(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.json")
	p := prepared(t, map[string]any{"report": report, "issuer": "Example"})
	comm, ui := newFakeComm(), &recordingUI{}
	if err := p.Provision(t.Context(), ui, comm, nil); err != nil {
		t.Fatal(err)
	}

	want := []string{"run probe", "upload totp-agent", "upload policy.yaml", "run bake", "run report", "run remove"}
	if got := comm.kinds(); !slices.Equal(got, want) {
		t.Errorf("operations %q, want %q", got, want)
	}
	if n := len(comm.kinds()); n > maxOperations {
		t.Errorf("%d operations, want at most %d", n, maxOperations)
	}
	agent := comm.find(t, "upload totp-agent")
	if agent.data != "agent for amd64" || agent.mode != 0o700 || agent.what != "/tmp/totp.AbCdEf1234/totp-agent" {
		t.Errorf("agent upload is %+v", agent)
	}
	pol := comm.find(t, "upload policy.yaml")
	if pol.data != string(p.policy) || !strings.Contains(pol.data, "issuer: Example") || pol.mode != 0o600 {
		t.Errorf("policy upload is %+v", pol)
	}
	data, err := os.ReadFile(report)
	if err != nil || !json.Valid(data) {
		t.Errorf("report: %q, %v", data, err)
	}

	// Each operation is said, with its time; the agent's lines stand between them.
	timed := regexp.MustCompile(`(?m)^totp: .*  \(\d+\.\ds\)$`)
	if n := len(timed.FindAllString(ui.all(), -1)); n != len(want)+1 {
		t.Errorf("%d steps said with their time, want %d:\n%s", n, len(want)+1, ui.all())
	}
	if !strings.Contains(ui.all(), "totp:   bake: packages\n") {
		t.Errorf("the agent's lines are not said:\n%s", ui.all())
	}
	if strings.Contains(ui.all(), doneMark) {
		t.Errorf("the end mark is said:\n%s", ui.all())
	}
}

// TestProviderWarning: a build for a provider whose machines no channel of the image
// leaves says so, and goes on.
func TestProviderWarning(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte("version: 1\nchannels: [{type: virtio}, {type: ssh-banner}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	channels := func(types ...string) map[string]any {
		var list []map[string]any
		for _, typ := range types {
			list = append(list, map[string]any{"type": typ})
		}
		return map[string]any{"channel": list}
	}
	for _, tt := range []struct {
		builder string
		config  map[string]any
		warned  bool
	}{
		{"hcloud", nil, true},
		{"hcloud", channels("virtio", "console"), true},
		{"hcloud", channels("virtio", "ssh-banner"), false},
		{"hcloud", map[string]any{"policy_file": file}, false},
		{"digitalocean", channels("file"), true},
		{"amazon-ebs", nil, false},
		{"amazon-ebs", channels("openstack"), true},
		{"openstack", channels("openstack"), false},
		{"googlecompute", nil, false},
		{"azure-arm", nil, true},
		{"proxmox-iso", nil, false},
		{"qemu", channels("openstack"), false},
		{"null", channels("openstack"), false},
		{"", nil, false},
	} {
		config := map[string]any{"packer_builder_type": tt.builder}
		for k, v := range tt.config {
			config[k] = v
		}
		ui := &recordingUI{}
		if err := prepared(t, config).Provision(t.Context(), ui, newFakeComm(), nil); err != nil {
			t.Fatal(err)
		}
		n := strings.Count(ui.all(), "totp: warning: channels: no channel ")
		if (n == 1) != tt.warned || n > 1 {
			t.Errorf("%s, %v: warned: %v, want %v\n%s", tt.builder, tt.config, n, tt.warned, ui.all())
		}
	}
}

func TestProvisionFailures(t *testing.T) {
	probe := func(old, new string) answer { return answer{stdout: strings.Replace(goodProbe, old, new, 1)} }
	whole := []string{"run probe", "upload totp-agent", "upload policy.yaml", "run bake", "run report", "run remove"}
	upTo := func(op string) []string {
		return slices.Concat(whole[:slices.Index(whole, op)+1], []string{"run remove"})
	}

	for _, tt := range []struct {
		name   string
		config map[string]any
		change func(*fakeComm)
		want   error
		ops    []string
		says   string // what the error must carry of the guest's own words
	}{
		{name: "answers nothing, as communicator none does", change: func(c *fakeComm) { c.probe = answer{} }, want: ErrNoAnswer, ops: whole[:1]},
		{name: "echoes the command", change: func(c *fakeComm) { c.probe = answer{stdout: probeCommand("/tmp", new(Provisioner).scripts()) + "\n"} }, want: ErrNoAnswer, ops: whole[:1]},
		{name: "another shell", change: func(c *fakeComm) {
			c.probe = answer{stderr: "'sh' is not recognized as a command\r\n", status: 1}
		}, want: ErrNoAnswer, ops: whole[:1], says: "not recognized"},
		{name: "answer cut short", change: func(c *fakeComm) { c.probe = probe("TOTP-PROBE-END\n", "") }, want: ErrNoAnswer, ops: whole[:1]},
		{name: "answer with control characters", change: func(c *fakeComm) { c.probe = probe("Linux", "Lin\x1b[2Jux") }, want: ErrNoAnswer, ops: whole[:1]},
		{name: "a directory that is not ours", change: func(c *fakeComm) { c.probe = probe("/tmp/totp.AbCdEf1234", "/") }, want: ErrNoAnswer, ops: whole[:1]},
		{name: "a directory with a command", change: func(c *fakeComm) { c.probe = probe("/tmp/totp.AbCdEf1234", "/tmp/totp.A;reboot") }, want: ErrNoAnswer, ops: whole[:1]},
		{name: "start fails", change: func(c *fakeComm) { c.probe = answer{err: os.ErrDeadlineExceeded} }, want: os.ErrDeadlineExceeded, ops: whole[:1]},
		{name: "not Linux", change: func(c *fakeComm) { c.probe = probe("Linux", "FreeBSD") }, want: ErrNotLinux, ops: upTo("run probe"), says: "FreeBSD"},
		{name: "unknown architecture", change: func(c *fakeComm) { c.probe = probe("x86_64", "s390x") }, want: agentbin.ErrNoArch, ops: upTo("run probe"), says: "s390x"},
		{name: "sudo asks for a password", change: func(c *fakeComm) {
			c.probe = answer{stdout: strings.NewReplacer("uid=0", "uid=1000", "sudo=root", "sudo=refused").Replace(goodProbe)}
		}, want: ErrNoSudo, ops: upTo("run probe")},
		{name: "no sudo", change: func(c *fakeComm) {
			c.probe = answer{stdout: strings.NewReplacer("uid=0", "uid=1000", "sudo=root", "sudo=missing").Replace(goodProbe)}
		}, want: ErrNoSudo, ops: upTo("run probe")},
		{name: "no directory", change: func(c *fakeComm) {
			c.probe = answer{stdout: strings.NewReplacer("dir=/tmp/totp.AbCdEf1234", "dir=", "error=", "error=mktemp: No space left on device", "run=yes", "run=no").Replace(goodProbe)}
		}, want: ErrNoFolder, ops: whole[:1], says: "No space left"},
		{name: "noexec", change: func(c *fakeComm) { c.probe = probe("run=yes", "run=no") }, want: ErrNoExecute, ops: upTo("run probe")},
		{name: "upload of the agent", change: func(c *fakeComm) {
			c.upload = func(p string) error {
				if strings.HasSuffix(p, "totp-agent") {
					return os.ErrPermission
				}
				return nil
			}
		}, want: ErrUpload, ops: upTo("upload totp-agent")},
		{name: "upload of the policy", change: func(c *fakeComm) {
			c.upload = func(p string) error {
				if strings.HasSuffix(p, "policy.yaml") {
					return os.ErrPermission
				}
				return nil
			}
		}, want: ErrUpload, ops: upTo("upload policy.yaml")},
		{name: "bake fails", change: func(c *fakeComm) {
			c.bake = answer{stdout: "bake: packages\n" + doneMark + "1\n", stderr: "totp-agent: sshd -t: bad line\n", status: 1}
		}, want: ErrBake, ops: upTo("run bake"), says: "sshd -t: bad line"},
		{name: "bake refuses the policy", change: func(c *fakeComm) {
			c.bake = answer{stdout: doneMark + "2\n", stderr: "totp-agent: image.yaml:2:1: isuer: unknown key\n", status: 2}
		}, want: ErrRefused, ops: upTo("run bake"), says: "image.yaml:2:1"},
		{name: "bake fails on a pseudo-terminal", change: func(c *fakeComm) {
			c.bake = answer{stdout: "totp-agent: sshd -t: bad line\r\n" + doneMark + "1\r\n", status: 1}
		}, want: ErrBake, ops: upTo("run bake"), says: "sshd -t: bad line"},
		{name: "agent does not run", change: func(c *fakeComm) {
			c.bake = answer{stdout: doneMark + "126\n", stderr: "cannot execute binary file\n", status: 126}
		}, want: ErrNotRun, ops: upTo("run bake"), says: "cannot execute"},
		{name: "execute_command fails", change: func(c *fakeComm) {
			c.bake = answer{stderr: "sudo: a password is required\n", status: 1}
		}, want: ErrNotRun, ops: upTo("run bake"), says: "a password is required"},
		{name: "connection lost, as ssh reports it", change: func(c *fakeComm) { c.bake = answer{stdout: "bake: packages\n"} }, want: ErrLost, ops: upTo("run bake")},
		{name: "disconnected", change: func(c *fakeComm) { c.bake = answer{status: packersdk.CmdDisconnect} }, want: ErrLost, ops: upTo("run bake")},
		{name: "no report", config: map[string]any{"skip_clean": true}, change: func(c *fakeComm) {
			c.report = answer{stderr: "cat: report.json: No such file or directory\n", status: 1}
		}, want: ErrNoReport, ops: whole, says: "No such file"},
		{name: "a leak", change: func(c *fakeComm) {
			c.report = answer{stderr: "clean: logs (1 ms)\ntotp-agent: the image is not clean:\ntotp-agent: /etc/x: host-key\n", status: 1, stdout: "{}"}
		}, want: ErrClean, ops: whole, says: "/etc/x: host-key"},
		{name: "no clean", change: func(c *fakeComm) { c.report = answer{stderr: "sh: totp-agent: not found\n", status: 127} }, want: ErrNoReport, ops: whole, says: "not found"},
		{name: "empty report", change: func(c *fakeComm) { c.report = answer{} }, want: ErrNoReport, ops: whole},
		{name: "report is not JSON", change: func(c *fakeComm) { c.report = answer{stdout: `{"version": 1`} }, want: ErrBadReport, ops: whole},
		{name: "report too large", change: func(c *fakeComm) {
			c.report = answer{stdout: `{"version": 1}` + strings.Repeat(" ", maxReport)}
		}, want: ErrBadReport, ops: whole},
		{name: "remove fails", change: func(c *fakeComm) { c.remove = answer{status: 1, stderr: "rm: busy\n"} }, want: ErrLeftOver, ops: whole, says: "rm: busy"},
		{name: "remove cannot start", change: func(c *fakeComm) { c.remove = answer{err: os.ErrClosed} }, want: ErrLeftOver, ops: whole},
		{name: "execute_command cannot be rendered", config: map[string]any{"execute_command": "echo hunter2 | {{ .Path.Nothing }}"}, want: ErrExecuteCommand, ops: upTo("upload policy.yaml")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			comm, ui := newFakeComm(), &recordingUI{}
			if tt.change != nil {
				tt.change(comm)
			}
			err := prepared(t, tt.config).Provision(t.Context(), ui, comm, nil)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %q does not say %q", err, tt.says)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q gives execute_command away", err)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' && r != '\n' }) {
				t.Errorf("error %q has control characters", err)
			}
			if got := comm.kinds(); !slices.Equal(got, tt.ops) {
				t.Errorf("operations %q, want %q", got, tt.ops)
			}
		})
	}
}

// TestLastWords: an error repeats the agent's errors, and not the progress that
// was said above it.
func TestLastWords(t *testing.T) {
	for _, tt := range []struct {
		name                 string
		stderr, stdout, want []string
	}{
		{"nothing", nil, nil, nil},
		{"errors among progress", []string{"bake: pam", "totp-agent: a", "totp-agent: b"}, []string{"x"}, []string{"a", "b"}},
		{"one stream", nil, []string{"bake: pam", "totp-agent: a"}, []string{"a"}},
		{"no errors of the agent", []string{"sh: not found"}, []string{"x"}, []string{"sh: not found"}},
		{"stdout alone", nil, []string{"x"}, []string{"x"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := lastWords(tt.stderr, tt.stdout); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestProvisionWithSudo shows what is run as root for whom.
func TestProvisionWithSudo(t *testing.T) {
	asUser := strings.NewReplacer("uid=0", "uid=1000", "sudo=root", "sudo=yes").Replace(goodProbe)
	asked := strings.NewReplacer("uid=0", "uid=1000", "sudo=root", "sudo=refused").Replace(goodProbe)
	vars := `PACKER_BUILD_NAME='it'"'"'s' PACKER_BUILDER_TYPE='null' `
	for _, tt := range []struct{ name, probe, command, want string }{
		{"root", goodProbe, "", "sh '/tmp/totp.AbCdEf1234/bake'"},
		{"user", asUser, "", "sudo -n sh '/tmp/totp.AbCdEf1234/bake'"},
		{"own command", asked, "echo 'packer' | {{.Vars}} sudo -S -E sh -eux '{{.Path}}'",
			"echo 'packer' | " + vars + " sudo -S -E sh -eux '/tmp/totp.AbCdEf1234/bake'"},
		{"build's data", goodProbe, "echo {{ build `ID` }}; {{.Path}}", "echo i-123; /tmp/totp.AbCdEf1234/bake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			comm := newFakeComm()
			comm.probe = answer{stdout: tt.probe}
			p := prepared(t, map[string]any{"execute_command": tt.command, "packer_build_name": "it's", "packer_builder_type": "null"})
			if err := p.Provision(t.Context(), &recordingUI{}, comm, map[string]any{"ID": "i-123", "SSHPrivateKey": "secret"}); err != nil {
				t.Fatal(err)
			}
			if got := comm.ops[3].what; got != tt.want {
				t.Errorf("bake is run by\n%s, want\n%s", got, tt.want)
			}
			if got, want := comm.ops[4].what, strings.Replace(tt.want, "/bake", "/report", 1); got != want {
				t.Errorf("report is fetched by\n%s, want\n%s", got, want)
			}
		})
	}
}

func TestProvisionArm64(t *testing.T) {
	comm := newFakeComm()
	comm.probe = answer{stdout: strings.Replace(goodProbe, "x86_64", "aarch64", 1)}
	if err := prepared(t, nil).Provision(t.Context(), &recordingUI{}, comm, nil); err != nil {
		t.Fatal(err)
	}
	if got := comm.find(t, "upload totp-agent").data; got != "agent for arm64" {
		t.Errorf("uploaded %q", got)
	}
}

// TestProvisionCancelled cancels while the agent bakes: Provision returns at
// once, and still removes what it has put on the guest.
func TestProvisionCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	comm := newFakeComm()
	comm.bake.hang = make(chan struct{})
	defer close(comm.bake.hang)
	comm.onRun = func(command string) {
		if strings.Contains(command, "/bake'") {
			cancel()
		}
	}
	done := make(chan error, 1)
	go func() { done <- prepared(t, nil).Provision(ctx, &recordingUI{}, comm, nil) }()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want %v", err, context.Canceled)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Provision ignores that it is cancelled")
	}
	want := []string{"run probe", "upload totp-agent", "upload policy.yaml", "run bake", "run remove"}
	if got := comm.kinds(); !slices.Equal(got, want) {
		t.Errorf("operations %q, want %q", got, want)
	}
}

// TestReportStaysWhole: a report that cannot be fetched leaves an older one as
// it is.
func TestReportStaysWhole(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.json")
	if err := os.WriteFile(report, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	comm := newFakeComm()
	comm.report = answer{stdout: "{"}
	if err := prepared(t, map[string]any{"report": report}).Provision(t.Context(), &recordingUI{}, comm, nil); !errors.Is(err, ErrBadReport) {
		t.Errorf("error %v, want %v", err, ErrBadReport)
	}
	if data, _ := os.ReadFile(report); string(data) != "old" {
		t.Errorf("report is now %q", data)
	}
}

// The provisioner does not import package target, which is the agent's.
func TestReportPath(t *testing.T) {
	if reportPath != target.Report {
		t.Errorf("reportPath is %q, the agent's is %q", reportPath, target.Report)
	}
}

// What runs on the guest follows the block.
func TestScripts(t *testing.T) {
	for _, test := range []struct {
		block            map[string]any
		selfTest, report string
		bake             string // what it has besides the policy
	}{
		{map[string]any{}, "$d/totp-agent selftest", "$d/totp-agent clean --report", ""},
		{map[string]any{"skip_clean": true}, "$d/totp-agent selftest", "cat " + target.Report, ""},
		{map[string]any{"packer_builder_type": "null"}, "$d/totp-agent selftest", "cat " + target.Report, ""},
		{map[string]any{"packer_builder_type": "qemu"}, "$d/totp-agent selftest", "$d/totp-agent clean --report", ""},
		{map[string]any{"skip_selftest": true}, "$d/totp-agent selftest --skip", "$d/totp-agent clean --report", ""},
		{map[string]any{"allow_untested_system": true}, "$d/totp-agent selftest", "$d/totp-agent clean --report", " --allow-untested-system"},
	} {
		if got := prepared(t, test.block).scripts(); got.report != test.report || got.selfTest != test.selfTest ||
			got.bake != "$d/totp-agent bake --policy $d/policy.yaml"+test.bake {
			t.Errorf("%v: %+v, want %+v", test.block, got, test)
		}
	}
}
