// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// ids are the findings in short: "ID PATH", sorted.
func ids(fs []Finding) []string {
	var out []string
	for _, f := range fs {
		out = append(out, f.ID+" "+f.Path)
	}
	slices.Sort(out)
	return out
}

func TestCheck(t *testing.T) {
	chmod := func(name string, mode os.FileMode) func(*machine) {
		return func(m *machine) { m.must(os.Chmod(filepath.Join(m.Root(), name), mode)) }
	}
	remove := func(name string) func(*machine) { return func(m *machine) { m.must(m.RemoveAll(name)) } }
	edit := func(name, old, new string) func(*machine) {
		return func(m *machine) { m.edit(name, old, new) }
	}
	const (
		units    = "/etc/systemd/system/"
		pamFile  = target.PAMService
		agent    = units + "totp-agent.service"
		deliver  = units + "totp-deliver.service"
		wants    = units + "ssh.service.wants/totp-agent.service"
		timer    = units + "timers.target.wants/totp-deliver.timer"
		enabled  = units + "multi-user.target.wants/ssh.service"
		socket   = units + "ssh.socket"
		state    = target.PAMStateDir
		tampered = "00-00-a.conf"
		top      = topComment + "\n" + topInclude + "\n\n"
	)
	for _, test := range []struct {
		name   string
		damage func(*machine)
		want   []string
	}{
		{"nothing", func(*machine) {}, nil},
		{"users are enrolled", func(m *machine) { m.put(state+"/alice", "x", 0o400); m.put(state+"/alice~Xy12Z", "x", 0o600) }, nil},

		{"no agent", remove(target.AgentPath), []string{"file-missing " + target.AgentPath}},
		{"agent not executable", chmod(target.AgentPath, 0o644), []string{"file-mode " + target.AgentPath}},
		{"agent of another machine", func(m *machine) { m.put(target.AgentPath, elfARM64, 0o755) }, []string{"agent-arch " + target.AgentPath}},
		{"no policy", remove(target.ImagePolicy), []string{"file-missing " + target.ImagePolicy}},
		{"policy that others read", chmod(target.ImagePolicy, 0o644), []string{"file-mode " + target.ImagePolicy}},
		{"policy cut short", func(m *machine) { m.put(target.ImagePolicy, "version: 1\nusers:\n  - {nam", 0o600) }, []string{"policy " + target.ImagePolicy}},

		{"no module", remove(module), []string{"pam-module " + module}},
		{"no module that counts", remove(tally), []string{"pam-module " + tally}},
		{"no copy of the PAM file", remove(target.PAMCopy), []string{"pam-copy " + target.PAMCopy}},
		{"a copy that others write", chmod(target.PAMCopy, 0o666), []string{"pam-copy " + target.PAMCopy}},
		{"a copy without the code", func(m *machine) { m.put(target.PAMCopy, "auth sufficient pam_permit.so\n", 0o644) }, []string{"pam-copy " + target.PAMCopy}},
		{"SSH closed", func(m *machine) {
			m.put(target.ClosedConf, "DenyUsers *\n", 0o644)
			m.put(target.ClosedBanner, "totp-agent: SSH is closed: x\n", 0o644)
		}, []string{"ssh-closed " + target.ClosedConf}},
		{"a way in by another file", func(m *machine) { m.put("/etc/pam.d/common-session", "auth sufficient pam_permit.so\n", 0o644) },
			[]string{"pam-permit /etc/pam.d/common-session:1"}},
		{"PAM file that others write", chmod(pamFile, 0o666), []string{"file-mode " + pamFile}},

		{"no state directory", remove(state), []string{"file-missing " + state}},
		{"directory of PAM files that others write", chmod("/etc/pam.d", 0o777), []string{"file-mode /etc/pam.d"}},
		{"sshd_config that others write", chmod(target.SSHDConfig, 0o664), []string{"file-mode " + target.SSHDConfig}},
		{"drop-ins that others add", chmod(target.SSHDDropInDir, 0o757), []string{"file-mode " + target.SSHDDropInDir}},
		{"sshd's directory that others write", chmod("/etc/ssh", 0o775), []string{"file-mode /etc/ssh"}},
		{"state directory open", chmod(state, 0o755), []string{"file-mode " + state}},
		{"state directory a link", func(m *machine) {
			m.must(m.RemoveAll(state))
			m.must(m.Mkdir("/srv", 0o700))
			m.must(m.Symlink("/srv", state))
		}, []string{"file-kind " + state}},
		{"state file that others read", func(m *machine) { m.put(state+"/alice", "x", 0o440) }, []string{"file-mode " + state + "/alice"}},
		{"state file a link", func(m *machine) { m.must(m.Symlink("/etc/passwd", state+"/alice")) }, []string{"file-kind " + state + "/alice"}},
		{"agent's directory open", chmod(target.StateDir, 0o755), []string{"file-mode " + target.StateDir}},

		{"no sshd", remove(target.SSHD), []string{"sshd-missing " + target.SSHD}},
		{"no sshd_config", remove(target.SSHDConfig), []string{"sshd-config " + target.SSHDConfig}},
		{"Include lost", edit(target.SSHDConfig, top, ""), []string{"sshd-include " + target.SSHDConfig}},
		{"no Include at all", edit(target.SSHDConfig, "Include ", "#Include "), []string{"sshd-no-include " + target.SSHDConfig}},
		{"a Match block first", edit(target.SSHDConfig, top, "Match User *\n"), []string{"sshd-match-before " + target.SSHDConfig + ":1"}},
		{"a keyword first", edit(target.SSHDConfig, top, "UsePAM no\n"), []string{"sshd-keyword-before " + target.SSHDConfig + ":1"}},
		{"a drop-in first", func(m *machine) { m.put("/etc/ssh/sshd_config.d/"+tampered, "", 0o600) }, nil},
		{"a drop-in first, and the Include lost", func(m *machine) {
			m.put("/etc/ssh/sshd_config.d/"+tampered, "", 0o600)
			m.edit(target.SSHDConfig, top, "")
		}, []string{"sshd-dropin-before /etc/ssh/sshd_config.d/" + tampered}},
		{"no drop-in", remove(target.SSHDDropIn), []string{"file-missing " + target.SSHDDropIn}},
		{"drop-in altered", edit(target.SSHDDropIn, "AllowTcpForwarding no", "AllowTcpForwarding yes"), []string{"file-altered " + target.SSHDDropIn}},
		{"drop-in readable", chmod(target.SSHDDropIn, 0o644), []string{"file-mode " + target.SSHDDropIn}},
		{"sshd refuses", func(m *machine) {
			m.fail[target.SSHD+" -t"] = targettest.Answer{Stderr: "line 3: Bad", Err: errCommand}
		},
			[]string{"sshd-test " + target.SSHDConfig}},
		{"sshd asks root for no code", func(m *machine) {
			m.fail[target.SSHD+" -T -C user=root,"] = targettest.Answer{Stdout: strings.Replace(m.settings("alice"), "publickey,keyboard-interactive", "publickey", 1)}
		}, []string{"sshd-effective " + target.SSHDConfig}},
		{"sshd without PAM", func(m *machine) { m.effective["UsePAM"] = "no" }, []string{"sshd-effective " + target.SSHDConfig}},

		{"unit missing", remove(agent), []string{"file-missing " + agent}},
		{"unit altered", edit(agent, "TimeoutStartSec=30", "TimeoutStartSec=0"), []string{"file-altered " + agent}},
		{"unit masked", func(m *machine) { m.must(m.Remove(agent)); m.must(m.Symlink("/dev/null", agent)) }, []string{"unit-masked " + agent}},
		{"unit changed by a drop-in", func(m *machine) { m.put(agent+".d/x.conf", "[Service]\nExecStart=\n", 0o644) }, []string{"unit-altered " + agent + ".d/x.conf"}},
		{"proxy of the delivery", func(m *machine) {
			m.put(deliver+".d/proxy.conf", "[Service]\nEnvironment=\"https_proxy=http://proxy.example:3128\" no_proxy=.example\nEnvironment=SSL_CERT_DIR=/etc/ca\n", 0o644)
		}, nil},
		{"library of the delivery", func(m *machine) {
			m.put(deliver+".d/x.conf", "[Service]\nEnvironment=https_proxy=http://proxy.example LD_PRELOAD=/tmp/x.so\n", 0o644)
		}, []string{"unit-altered " + deliver + ".d/x.conf"}},
		{"delivery as another user", func(m *machine) {
			m.put(deliver+".d/x.conf", "[Service]\nEnvironment=no_proxy=*\nUser=nobody\n", 0o644)
		}, []string{"unit-altered " + deliver + ".d/x.conf"}},
		{"unit disabled", remove(wants), []string{"unit-disabled " + wants}},
		{"timer disabled", remove(timer), []string{"unit-disabled " + timer}},
		{"sshd disabled", remove(enabled), []string{"unit-disabled " + enabled}},
		{"preset gone", remove("/etc/systemd/system-preset/00-totp.preset"), []string{"file-missing /etc/systemd/system-preset/00-totp.preset"}},
		{"sshd masked", func(m *machine) { m.must(m.Symlink("/dev/null", units+"ssh.service")) }, []string{"ssh-masked " + units + "ssh.service"}},
		{"sshd started otherwise", edit(unit, "-D $SSHD_OPTS", "-D -f /x"), []string{"ssh-unit " + unit}},
		{"sshd started by a drop-in", func(m *machine) { m.put(units+"ssh.service.d/zz.conf", "[Service]\nExecStart =\n", 0o644) }, []string{"ssh-unit " + units + "ssh.service.d/zz.conf"}},
		{"socket unmasked", remove(socket), []string{"socket-unmasked " + socket}},
		{"socket enabled", func(m *machine) {
			m.must(m.Remove(socket))
			m.put(units+"sockets.target.wants/x", "", 0o644)
			m.must(m.Symlink("/lib/systemd/system/ssh.socket", units+"sockets.target.wants/ssh.socket"))
		}, []string{"socket-enabled " + units + "sockets.target.wants/ssh.socket", "socket-unmasked " + socket}},
		{"socket masked, and required", func(m *machine) {
			m.put(units+"ssh.service.requires/x", "", 0o644)
			m.must(m.Symlink("/lib/systemd/system/ssh.socket", units+"ssh.service.requires/ssh.socket"))
		}, []string{"socket-required " + units + "ssh.service.requires/ssh.socket"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.bake()
			test.damage(m)
			before := snapshot(t, m.Root(), false)
			findings, err := Check(t.Context(), m.Target)
			if err != nil {
				t.Fatal(err)
			}
			if got := ids(findings); !slices.Equal(got, test.want) {
				t.Errorf("got %q\nwant %q", got, test.want)
			}
			for _, f := range findings {
				if f.What == "" || f.Fix == "" || f.Severity != Critical && f.Severity != Degraded {
					t.Errorf("%+v", f)
				}
			}
			if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
				t.Errorf("the check changed:\n%s", strings.Join(d, "\n"))
			}
		})
	}
}

// What check reports, bake puts right, where it is the agent's own.
func TestBakeRepairs(t *testing.T) {
	m := newMachine(t)
	m.bake()
	for _, name := range []string{target.AgentPath, target.SSHDDropIn, sshUnitTemplate, "/etc/systemd/system/ssh.socket", "/etc/systemd/system/ssh.service.wants/totp-agent.service"} {
		m.must(m.Remove(name))
	}
	m.put(target.PAMService, stock(t, "pam.d-sshd"), 0o644)
	m.must(m.Chmod(target.PAMStateDir, 0o755))
	if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) < 7 {
		t.Errorf("damaged: %q, %v", ids(findings), err)
	}
	m.bake()
	if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
		t.Errorf("repaired: %q, %v", ids(findings), err)
	}
}

func TestCheckUnsupported(t *testing.T) {
	m := newMachine(t)
	m.put(target.OSRelease, "ID=alpine\nVERSION_ID=3.20\n", 0o644)
	if _, err := Check(t.Context(), m.Target); !errors.Is(err, ErrSystem) {
		t.Errorf("got %v", err)
	}
}
