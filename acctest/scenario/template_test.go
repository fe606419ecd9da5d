// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package scenario

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"gopkg.in/yaml.v3"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

const example = "../../examples/qemu-debian"

func readExample(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(example, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// cloudConfig is what these tests look at in user-data.
type cloudConfig struct {
	Users []struct {
		Name string   `yaml:"name"`
		Keys []string `yaml:"ssh_authorized_keys"`
	} `yaml:"users"`
	WriteFiles []writeFile `yaml:"write_files"`
}

// instancePolicy returns the policy in user-data, as the agent will read it.
func instancePolicy(t *testing.T, data []byte) (cloudConfig, *policy.Policy) {
	t.Helper()
	if !bytes.HasPrefix(data, []byte("#cloud-config\n")) {
		t.Error("its first line is not #cloud-config")
	}
	var c cloudConfig
	if err := yaml.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.WriteFiles) != 1 || c.WriteFiles[0].Path != target.InstancePolicy || c.WriteFiles[0].Permissions != "0600" {
		t.Fatalf("write_files %+v", c.WriteFiles)
	}
	p, err := policy.Parse(policy.Instance, c.WriteFiles[0].Path, []byte(c.WriteFiles[0].Content))
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

func TestExampleUserData(t *testing.T) {
	c, p := instancePolicy(t, readExample(t, "user-data.yaml"))
	if len(c.Users) != 1 || len(p.Users) != 1 || c.Users[0].Name != p.Users[0].Name || len(p.Users[0].Recipients) != 1 {
		t.Errorf("accounts %+v, enrolled %+v", c.Users, p.Users)
	}
}

func TestExampleTemplate(t *testing.T) {
	data := readExample(t, "debian.pkr.hcl")
	if formatted := hclwrite.Format(data); !bytes.Equal(formatted, data) {
		t.Error("it is not formatted; run packer fmt")
	}
	file, diags := hclparse.NewParser().ParseHCL(data, "debian.pkr.hcl")
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	content, _, diags := file.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "variable", LabelNames: []string{"name"}},
	}})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	// What the lab sets is there, and a user has to set the key alone.
	var names, required []string
	for _, b := range content.Blocks {
		names = append(names, b.Labels[0])
		attrs, _ := b.Body.JustAttributes()
		if attrs["default"] == nil {
			required = append(required, b.Labels[0])
		}
	}
	l := &Lab{Work: "/w"}
	for _, v := range l.bakeVars("sum", "key") {
		if name, _, _ := strings.Cut(v, "="); !slices.Contains(names, name) {
			t.Errorf("no variable %s", name)
		}
	}
	if !slices.Equal(required, []string{"build_key"}) {
		t.Errorf("without a default are %v", required)
	}
}

func TestExampleHasNothingElse(t *testing.T) {
	entries, err := os.ReadDir(example)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	if want := []string{"README.md", "debian.pkr.hcl", "user-data.yaml"}; !slices.Equal(names, want) {
		t.Errorf("%v, of which tests know %v", names, want)
	}
}

// The README's file names are those of the template.
func TestExampleReadme(t *testing.T) {
	readme, template := string(readExample(t, "README.md")), string(readExample(t, "debian.pkr.hcl"))
	if !strings.Contains(readme, "debian-12-totp.qcow2") {
		t.Error("the image's default name is not in the README")
	}
	for _, name := range []string{"debian-12-totp", "org.totp.enroll.0"} {
		if !strings.Contains(readme, name) || !strings.Contains(template, name) {
			t.Errorf("%s is not in both", name)
		}
	}
}
