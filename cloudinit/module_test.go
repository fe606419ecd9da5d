// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package cloudinit_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/cloudinit"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// tool finds a program of Debian's. Where it is missing the test is skipped, but
// not in continuous integration.
func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err == nil {
		return p
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", name)
	}
	t.Skipf("%s is missing", name)
	return ""
}

// Python's linters have nothing to say of the module, and do where there is
// something.
func TestModuleLint(t *testing.T) {
	text, err := cloudinit.Module()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cc_totp.py")
	for _, linter := range []string{"pyflakes3", "pycodestyle"} {
		program := tool(t, linter)
		for bad, text := range map[bool]string{false: string(text), true: string(text) + "import sys;x = yy\n"} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(program, file).CombinedOutput()
			if (err != nil) != bad {
				t.Errorf("%s, with faults %v: %v\n%s", linter, bad, err, out)
			}
		}
	}
}

// The names that this package has of its own, since its API names no internal
// one, are those that the agent goes by.
func TestModuleNames(t *testing.T) {
	if cloudinit.ModulePath != target.CloudModule || cloudinit.UnitPath != target.SystemdUnitDir+"/"+target.ModuleService {
		t.Errorf("%s, %s", cloudinit.ModulePath, cloudinit.UnitPath)
	}
	module, err := cloudinit.Module()
	if err != nil || !strings.Contains(string(module), "AGENT = \""+target.AgentPath+"\"\n") {
		t.Errorf("the module does not call the agent: %v\n%s", err, module)
	}
	unit, err := cloudinit.ModuleUnit()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ConditionPathExists=" + target.CloudModule, "ConditionPathExists=" + target.CloudInit, "Before=" + target.AgentService, target.CloudConfig, target.CloudVendorConfig} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("the unit has no %s:\n%s", want, unit)
		}
	}
}
