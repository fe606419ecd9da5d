// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// One cause is one finding, however many users, keywords, units and files it concerns.
func TestOneFindingPerCause(t *testing.T) {
	noMethods := func(m *machine, user string) {
		m.fail[target.SSHD+" -T -C user="+user+","] = targettest.Answer{Stdout: strings.NewReplacer("publickey,keyboard-interactive", "any", "usepam yes", "usepam no").Replace(m.settings(user))}
	}
	upgrade := func(m *machine, release, openSSH string) {
		m.put(target.OSRelease, release, 0o644)
		m.openSSH = openSSH
	}
	const debian13 = "ID=debian\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian GNU/Linux 13\"\n"
	outdated := []string{"degraded bake-outdated " + target.Report}
	for _, test := range []struct {
		name   string
		damage func(*machine)
		want   []string // "SEVERITY ID PATH"
	}{
		{"settings of all users", func(m *machine) { m.effective["UsePAM"], m.effective["AuthenticationMethods"] = "no", "any" }, []string{"critical sshd-effective " + target.SSHDConfig}},
		{"a Match block", func(m *machine) { noMethods(m, "alice") }, []string{"critical sshd-effective " + target.SSHDConfig}},
		{"two causes", func(m *machine) { m.effective["PubkeyAuthentication"] = "no"; noMethods(m, "alice") },
			[]string{"critical sshd-effective " + target.SSHDConfig, "critical sshd-effective " + target.SSHDConfig}},
		{"modes of one directory", func(m *machine) {
			for _, name := range []string{"alice", "bob", "carol"} {
				m.put(target.PAMStateDir+"/"+name, "x", 0o440)
			}
		}, []string{"critical file-mode " + target.PAMStateDir}},
		{"the worst first", func(m *machine) {
			m.must(m.Remove(target.AgentPath))
			m.must(m.Remove(module))
		}, []string{"critical pam-module " + module, "degraded file-missing " + target.AgentPath}},

		{"an upgrade of the system", func(m *machine) { upgrade(m, debian13, "10.0") }, outdated},
		{"an upgrade that the repair has followed", func(m *machine) {
			upgrade(m, debian13, "10.0")
			_, err := Repair(m.tb.Context(), m.Target, RepairOptions{})
			m.must(err)
		}, outdated},
		{"an upgrade of OpenSSH alone", func(m *machine) { upgrade(m, debian12, "9.8") }, outdated},
		{"an upgrade, and a file that was edited", func(m *machine) {
			upgrade(m, debian13, "10.0")
			m.put(target.SSHDLogin, "UsePAM no\n", 0o600)
		}, []string{"critical file-altered " + target.SSHDLogin, outdated[0]}},
		{"another policy", func(m *machine) { m.put(target.ImagePolicy, "version: 1\nsshd:\n  tcp_forwarding: allow\n", 0o600) }, outdated},
		{"an agent with more files", func(m *machine) {
			r, err := ReadReport(m.Target)
			m.must(err)
			last := target.SystemdUnitDir + "/" + target.RecheckService
			r.Files = slices.DeleteFunc(r.Files, func(f ReportFile) bool { return f.Path == last })
			r.Agent = "0.0.1"
			m.must(r.Write(m.Target))
			m.must(m.Remove(last))
		}, outdated},
		{"an upgrade, and no report", func(m *machine) { upgrade(m, debian12, "9.8"); m.must(m.Remove(target.Report)) },
			[]string{"critical file-altered " + target.SSHDDropIn, "critical file-altered " + target.SSHDLogin, "degraded file-altered " + sshUnitTemplate}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.bake()
			test.damage(m)
			findings, err := Check(t.Context(), m.Target)
			m.must(err)
			var got []string
			for _, f := range findings {
				got = append(got, string(f.Severity)+" "+f.ID+" "+f.Path)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q\nwant %q\n%v", got, test.want, findings)
			}
			// The command of the finding ends it.
			if !slices.Contains(got, outdated[0]) || len(got) > 1 {
				return
			}
			if fix := findings[0].Fix; fix != bakeAgain {
				t.Errorf("fix %q", fix)
			}
			o, err := Again(m.Target)
			m.must(err)
			o.Agent = m.options().Agent
			if _, err := Run(t.Context(), m.Target, o); err != nil {
				t.Fatal(err)
			}
			if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
				t.Errorf("baked again: %v, %v", findings, err)
			}
		})
	}
}

// What the findings say that a script or a person needs.
func TestFindingTexts(t *testing.T) {
	m := newMachine(t)
	m.bake()
	for _, name := range []string{"alice", "bob"} {
		m.put(target.PAMStateDir+"/"+name, "x", 0o440)
	}
	m.put(target.OSRelease, "ID=debian\nVERSION_ID=\"13\"\n", 0o644)
	m.openSSH = "10.0"
	m.effective["UsePAM"] = "no"
	findings, err := Check(t.Context(), m.Target)
	m.must(err)
	text := map[string]string{}
	for _, f := range findings {
		text[f.ID] = f.What + "; " + f.Fix
	}
	for id, words := range map[string][]string{
		"bake-outdated":  {"Debian 12, OpenSSH 9.2;", "Debian 13, OpenSSH 10.0;"},
		"file-mode":      {"alice, bob;", "chmod 0400 " + target.PAMStateDir + "/alice " + target.PAMStateDir + "/bob"},
		"sshd-effective": {`UsePAM is "no", want "yes"`, "all users", "'UsePAM'"},
	} {
		for _, w := range words {
			if !strings.Contains(text[id], w) {
				t.Errorf("%s: %q lacks %q", id, text[id], w)
			}
		}
	}
}

// --again needs a policy that is whole, and keeps what the first bake was allowed.
func TestAgain(t *testing.T) {
	for _, test := range []struct {
		name     string
		change   func(*machine)
		err      error
		untested bool
	}{
		{"as baked", func(*machine) {}, nil, false},
		{"no policy", func(m *machine) { m.must(m.Remove(target.ImagePolicy)) }, fs.ErrNotExist, false},
		{"an untested system", func(m *machine) { m.report(func(r *Report) { r.System.Support = Untested }) }, nil, true},
		{"another system", func(m *machine) {
			m.report(func(r *Report) { r.System.Support, r.System.ID = Untested, "rocky" })
		}, nil, false},
	} {
		m := newMachine(t)
		m.bake()
		test.change(m)
		o, err := Again(m.Target)
		if !errors.Is(err, test.err) || o.AllowUntested != test.untested || err == nil && o.Policy.Issuer != "Example Hosting" {
			t.Errorf("%s: %+v, %v", test.name, o, err)
		}
	}
	m := newMachine(t)
	m.bake()
	m.put(target.ImagePolicy, "version: 1\nissuer: [", 0o600)
	var wrong policy.Errors
	if _, err := Again(m.Target); !errors.As(err, &wrong) {
		t.Errorf("broken policy: %v", err)
	}
}

// report changes the report of the last bake.
func (m *machine) report(change func(*Report)) {
	m.tb.Helper()
	r, err := ReadReport(m.Target)
	m.must(err)
	change(r)
	m.must(r.Write(m.Target))
}

func TestWorst(t *testing.T) {
	for _, test := range []struct {
		have []Severity
		want Severity
	}{
		{nil, ""},
		{[]Severity{Notice, Warning, Notice}, Warning},
		{[]Severity{Notice, Critical, Degraded}, Critical},
	} {
		var fs []Finding
		for _, s := range test.have {
			fs = append(fs, Finding{Severity: s})
		}
		if got := Worst(fs); got != test.want {
			t.Errorf("%v: %q, want %q", test.have, got, test.want)
		}
	}
}

func TestCheckUnsupportedAfterUpgrade(t *testing.T) {
	m := newMachine(t)
	m.bake()
	m.put(target.OSRelease, "ID=debian\nVERSION_ID=\"15\"\n", os.FileMode(0o644))
	if _, err := Check(t.Context(), m.Target); !errors.Is(err, ErrSystem) || !strings.Contains(err.Error(), "baked as Debian 12") {
		t.Errorf("got %v", err)
	}
}
