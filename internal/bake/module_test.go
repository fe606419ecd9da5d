// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

// with bakes the machine under a policy that says this of cloud-init's module.
func (m *machine) with(module, listed bool) (*Report, error) {
	m.tb.Helper()
	o := m.options()
	o.Policy = &policy.Policy{Version: 1, CloudInitModule: module, CloudInitModuleListed: listed}
	return Run(m.tb.Context(), m.Target, o)
}

// cloudInit gives the machine a cloud-init that runs these modules, JSON lists:
// by its settings without our file, and by all of them.
func (m *machine) cloudInit(without, all string) {
	m.put(target.CloudInit, elfAMD64, 0o755)
	m.Handle = func(argv []string) targettest.Answer {
		switch {
		case argv[0] != target.Python || argv[3] != askList:
			return m.answer(argv)
		case argv[4] == "":
			return targettest.Answer{Stdout: all}
		}
		return targettest.Answer{Stdout: without}
	}
}

// same compares without regard to order.
func same(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

var moduleFiles = []string{target.CloudModule, target.SystemdUnitDir + "/" + target.ModuleService, target.SystemdUnitDir + "/ssh.service.wants/" + target.ModuleService}

func TestModule(t *testing.T) {
	m := newMachine(t)
	m.cloudInit("", "")
	report, err := m.with(true, false)
	m.must(err)
	for _, name := range moduleFiles {
		if !m.Exists(name) {
			t.Errorf("%s is missing", name)
		}
	}
	if !slices.ContainsFunc(report.Files, func(f ReportFile) bool { return f.Path == target.CloudModule && f.Mode == "0644" }) ||
		report.Links[moduleFiles[2]] != moduleFiles[1] || !strings.Contains(report.Policy, "cloud_init_module: true\n") {
		t.Errorf("the report lacks it: %v, %v", report.Files, report.Links)
	}
	findings, err := Check(t.Context(), m.Target)
	if err != nil || len(findings) > 0 {
		t.Errorf("%q, %v", ids(findings), err)
	}

	// What check says where it is not as it was.
	m.put(target.CloudModule, "def handle(", 0o644)
	m.fail[target.Python+" -B -c import cc_totp"] = targettest.Answer{Stderr: "SyntaxError", Err: errCommand}
	if findings, _ := Check(t.Context(), m.Target); !same(ids(findings), []string{"module " + target.CloudModule, "file-altered " + target.CloudModule}) {
		t.Errorf("a damaged module: %q", ids(findings))
	}
	// A bake that cannot make it work puts back what was there.
	if _, err := m.with(true, false); !errors.Is(err, ErrCloudInit) || m.read(target.CloudModule) != "def handle(" {
		t.Errorf("got %v and %q", err, m.read(target.CloudModule))
	}

	// Another policy takes it away, in one step with all else.
	m.must(m.Remove(moduleFiles[2]))
	m.put(target.SystemdUnitDir+"/"+target.ModuleService, "old", 0o644)
	text, err := (&policy.Policy{Version: 1}).Marshal()
	m.must(err)
	m.put(target.ImagePolicy, string(text), 0o600)
	if findings, _ := Check(t.Context(), m.Target); !same(ids(findings), []string{"module-left " + moduleFiles[1], "module-left " + moduleFiles[0]}) {
		t.Errorf("left behind: %q", ids(findings))
	}
	before := snapshot(t, m.Root(), false)
	m.fail[target.SSHD+" -t"] = targettest.Answer{Err: errCommand}
	if _, err := m.with(false, false); err == nil {
		t.Fatal("the bake succeeded")
	}
	if d := before.diff(snapshot(t, m.Root(), false)); d != nil {
		t.Errorf("not restored:\n%s", strings.Join(d, "\n"))
	}
	delete(m.fail, target.SSHD+" -t")
	_, err = m.with(false, false)
	m.must(err)
	for _, name := range moduleFiles {
		if m.Exists(name) {
			t.Errorf("%s is there", name)
		}
	}
}

func TestModuleWithoutCloudInit(t *testing.T) {
	m := newMachine(t)
	before := snapshot(t, m.Root(), false)
	if _, err := m.with(true, false); !errors.Is(err, ErrCloudInit) {
		t.Errorf("got %v", err)
	}
	delete(before, "/var/lib/totp-agent") // and its lock
	if d := before.diff(snapshot(t, m.Root(), false)); len(d) > 3 {
		t.Errorf("changed:\n%s", strings.Join(d, "\n"))
	}
}

// The list is the whole of the image's, and ours at its end, once.
func TestModuleListed(t *testing.T) {
	for _, tt := range []struct{ name, modules, want string }{
		{"Debian's", `["migrator", "users-groups", ["ssh", "always", "x"]]`, "  - \"migrator\"\n  - \"users-groups\"\n  - [\"ssh\", \"always\", \"x\"]\n  - \"totp\"\n"},
		{"with ours in it", `["totp", "cc_totp", ["totp", "always"], {"name": "ssh"}]`, "  - {\"name\": \"ssh\"}\n  - \"totp\"\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			m.cloudInit(tt.modules, `["ssh", "totp"]`)
			_, err := m.with(false, true)
			m.must(err)
			_, list, ok := strings.Cut(m.read(target.CloudModuleList), moduleLists+":\n")
			if !ok || list != tt.want || !m.Exists(target.CloudModule) {
				t.Errorf("got\n%s", m.read(target.CloudModuleList))
			}
			if findings, err := Check(t.Context(), m.Target); err != nil || len(findings) > 0 {
				t.Errorf("%q, %v", ids(findings), err)
			}
			_, err = m.with(true, false)
			m.must(err)
			if m.Exists(target.CloudModuleList) || !m.Exists(target.CloudModule) {
				t.Error("the list is there without being asked for, or the module is not")
			}
		})
	}
	for name, lists := range map[string][2]string{
		"no list":              {"null", "null"},
		"another list counts":  {`["ssh"]`, `["ssh"]`},
		"not cloud-init's own": {"Traceback", ""},
	} {
		m := newMachine(t)
		m.cloudInit(lists[0], lists[1])
		if _, err := m.with(false, true); !errors.Is(err, ErrCloudInit) || m.Exists(target.CloudModuleList) || m.Exists(target.CloudModule) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIsOurs(t *testing.T) {
	for entry, want := range map[string]bool{`"totp"`: true, `"cc_totp"`: true, `["totp"]`: true, `{"name": "totp"}`: true,
		`"totpx"`: false, `[]`: false, `[1]`: false, `{}`: false, `1`: false, `null`: false} {
		if isOurs(json.RawMessage(entry)) != want {
			t.Errorf("%s: want %v", entry, want)
		}
	}
}
