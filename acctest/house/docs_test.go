// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package house

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/dynblock"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclparse"
	packersdk "github.com/hashicorp/packer-plugin-sdk/packer"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/packer-plugin-totp/packer-plugin-totp/datasource/userdata"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/agentbin"
	"github.com/packer-plugin-totp/packer-plugin-totp/provisioner/totp"
)

// fence is a fenced block of a Markdown page.
type fence struct {
	lang, text string
	line       int
}

func fences(page []byte) []fence {
	var all []fence
	var open *fence
	for i, line := range strings.Split(string(page), "\n") {
		lang, is := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case is && open == nil:
			open = &fence{lang: lang, line: i + 1}
		case is:
			all, open = append(all, *open), nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return all
}

// provisionerBlocks returns the totp provisioners of a template, and the
// defaults of its variables. A variable without one is the string "x".
func provisionerBlocks(t *testing.T, name, text string) ([]*hcl.Block, map[string]cty.Value) {
	t.Helper()
	f, diags := hclparse.NewParser().ParseHCL([]byte(text), name)
	if diags.HasErrors() {
		t.Error(diags)
		return nil, nil
	}
	top, _, diags := f.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
		{Type: "build"}, {Type: "variable", LabelNames: []string{"name"}},
	}})
	if diags.HasErrors() {
		t.Error(diags)
	}
	var found []*hcl.Block
	vars := make(map[string]cty.Value)
	for _, v := range top.Blocks.OfType("variable") {
		vars[v.Labels[0]] = cty.StringVal("x")
		attrs, _ := v.Body.JustAttributes()
		if attr, ok := attrs["default"]; ok {
			if vars[v.Labels[0]], diags = attr.Expr.Value(nil); diags.HasErrors() {
				t.Error(diags)
			}
		}
	}
	for _, build := range top.Blocks.OfType("build") {
		inner, _, diags := build.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "provisioner", LabelNames: []string{"type"}}}})
		if diags.HasErrors() {
			t.Error(diags)
		}
		for _, b := range inner.Blocks {
			if b.Labels[0] == "totp" {
				found = append(found, b)
			}
		}
	}
	return found, vars
}

// prepare prepares a totp block as packer does, with dir as path.root.
func prepare(t *testing.T, b *hcl.Block, vars map[string]cty.Value, dir string) {
	t.Helper()
	ctx := &hcl.EvalContext{Variables: map[string]cty.Value{
		"path": cty.ObjectVal(map[string]cty.Value{"root": cty.StringVal(filepath.ToSlash(dir)), "cwd": cty.StringVal(filepath.ToSlash(dir))}),
		"var":  cty.ObjectVal(vars),
	}}
	// The keys that Packer itself takes from every provisioner block.
	_, body, _ := dynblock.Expand(b.Body, ctx).PartialContent(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{
		{Name: "only"}, {Name: "except"}, {Name: "timeout"}, {Name: "pause_before"}, {Name: "max_retries"},
	}})
	value, diags := hcldec.Decode(body, new(totp.Provisioner).ConfigSpec(), ctx)
	if diags.HasErrors() {
		t.Error(diags)
		return
	}
	var multi *packersdk.MultiError
	if err := new(totp.Provisioner).Prepare(value); errors.As(err, &multi) {
		for _, err := range multi.Errors {
			if !errors.Is(err, agentbin.ErrNotEmbedded) { // true of a test
				t.Errorf("%s: %v", b.DefRange, err)
			}
		}
	} else if err != nil {
		t.Errorf("%s: %v", b.DefRange, err)
	}
}

// TestReadmeOrder: whoever reads the README from its top learns first what this is,
// then how an image is made, what an owner sees, how to see it work, on which
// systems, and how to get back in; all else comes after.
func TestReadmeOrder(t *testing.T) {
	page := string(read(t, "README.md"))
	want := []string{"In a template", "What the owner of the server sees", "See it work", "Systems", "How to get back in"}
	var got []string
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(page, len(want)) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("README.md begins with the sections %q, want %q", got, want)
	}
	top, _, _ := strings.Cut(page, "\n## ")
	if strings.Contains(top, "```") || len(strings.Split(strings.TrimSpace(top), "\n\n")) < 2 {
		t.Errorf("README.md does not say what this is before its first section")
	}
}

// TestTemplates: what the pages and the examples show of our provisioner is
// accepted by it. A page's block of YAML that begins with a comment of a file's
// name is that file, beside the page's templates.
func TestTemplates(t *testing.T) {
	n := 0
	for _, name := range files(t) {
		switch path.Ext(name) {
		case ".hcl":
			if !strings.HasSuffix(name, ".pkr.hcl") {
				continue
			}
			blocks, vars := provisionerBlocks(t, name, string(read(t, name)))
			for _, b := range blocks {
				n++
				prepare(t, b, vars, filepath.Join(root(), filepath.FromSlash(path.Dir(name))))
			}
		case ".md", ".mdx":
			dir := t.TempDir()
			page := fences(read(t, name))
			for _, f := range page {
				first, _, _ := strings.Cut(f.text, "\n")
				if m := regexp.MustCompile(`^# ([a-z-]+\.yaml)$`).FindStringSubmatch(first); f.lang == "yaml" && m != nil {
					if err := os.WriteFile(filepath.Join(dir, m[1]), []byte(f.text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, f := range page {
				if f.lang != "hcl" {
					continue
				}
				// Blank lines ahead, so that errors name the line of the page.
				blocks, vars := provisionerBlocks(t, name, strings.Repeat("\n", f.line)+f.text)
				for _, b := range blocks {
					n++
					prepare(t, b, vars, dir)
				}
			}
		}
	}
	if n < 4 {
		t.Errorf("found %d totp blocks, want at least those of README, reference and examples", n)
	}
}

// TestReferenceNamesEveryKey: the reference pages have each key that a block may
// contain, and the pages for Packer's site are made from them.
func TestReferenceNamesEveryKey(t *testing.T) {
	for component, spec := range map[string]hcldec.ObjectSpec{
		"provisioner/totp":     new(totp.Provisioner).ConfigSpec(),
		"data-source/userdata": new(userdata.Datasource).ConfigSpec(),
	} {
		page := string(read(t, ".web-docs/components/"+component+"/README.md"))
		for key, spec := range spec {
			if strings.HasPrefix(key, "packer_") {
				continue // Packer's own
			}
			keys := []string{key}
			if blocks, ok := spec.(*hcldec.BlockListSpec); ok {
				for inner := range blocks.Nested.(hcldec.ObjectSpec) {
					keys = append(keys, inner)
				}
			}
			for _, key := range keys {
				if !strings.Contains(page, "\n- `"+key+"` (") {
					t.Errorf("the reference of %s does not explain %s", component, key)
				}
			}
		}
	}
}

// dataBlocks returns the totp-userdata data sources of a template.
func dataBlocks(t *testing.T, name, text string) []*hcl.Block {
	t.Helper()
	f, diags := hclparse.NewParser().ParseHCL([]byte(text), name)
	if diags.HasErrors() {
		t.Error(diags)
		return nil
	}
	top, _, _ := f.Body.PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "data", LabelNames: []string{"type", "name"}}}})
	var found []*hcl.Block
	for _, b := range top.Blocks {
		if b.Labels[0] == "totp-userdata" {
			found = append(found, b)
		}
	}
	return found
}

// TestDataSources: what the pages and the examples show of our data source gives
// a document.
func TestDataSources(t *testing.T) {
	n := 0
	try := func(name, text, dir string) {
		_, vars := provisionerBlocks(t, name, text)
		readFile := function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}},
			Type:   function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				data, err := os.ReadFile(args[0].AsString())
				return cty.StringVal(string(data)), err
			},
		})
		for _, b := range dataBlocks(t, name, text) {
			n++
			ctx := &hcl.EvalContext{
				Variables: map[string]cty.Value{"path": cty.ObjectVal(map[string]cty.Value{"root": cty.StringVal(filepath.ToSlash(dir))}), "var": cty.ObjectVal(vars)},
				Functions: map[string]function.Function{"file": readFile},
			}
			d := new(userdata.Datasource)
			value, diags := hcldec.Decode(b.Body, d.ConfigSpec(), ctx)
			if diags.HasErrors() {
				t.Error(diags)
				continue
			}
			if err := d.Configure(value); err != nil {
				t.Errorf("%s: %v", b.DefRange, err)
			} else if out, err := d.Execute(); err != nil {
				t.Errorf("%s: %v", b.DefRange, err)
			} else if w := out.GetAttr("warnings"); w.LengthInt() > 0 {
				t.Errorf("%s: %#v", b.DefRange, w)
			}
		}
	}
	for _, name := range files(t) {
		dir := filepath.Join(root(), filepath.FromSlash(path.Dir(name)))
		switch path.Ext(name) {
		case ".hcl":
			if strings.HasSuffix(name, ".pkr.hcl") {
				try(name, string(read(t, name)), dir)
			}
		case ".md", ".mdx":
			for _, f := range fences(read(t, name)) {
				if f.lang == "hcl" {
					try(name, strings.Repeat("\n", f.line)+f.text, dir)
				}
			}
		}
	}
	if n < 3 {
		t.Errorf("found %d data sources, want at least those of the reference and the example", n)
	}
}

// TestLinks: a relative link in a page leads to a file.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range files(t) {
		if path.Ext(name) != ".md" || strings.HasPrefix(name, ".web-docs/") || name == "docs/README.md" {
			continue // those are for another site
		}
		for _, m := range link.FindAllStringSubmatch(string(read(t, name)), -1) {
			to, _, _ := strings.Cut(m[1], "#")
			if to == "" || strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root(), filepath.FromSlash(path.Join(path.Dir(name), to)))); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	}
}

// TestMakeTargets: the pages name only targets that make knows, and make help
// lists every target.
func TestMakeTargets(t *testing.T) {
	makefile := string(read(t, "GNUmakefile"))
	var phony, helped []string
	for _, m := range regexp.MustCompile(`(?m)^\.PHONY: ([a-z-]+)$`).FindAllStringSubmatch(makefile, -1) {
		phony = append(phony, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):.*## `).FindAllStringSubmatch(makefile, -1) {
		helped = append(helped, m[1])
	}
	slices.Sort(phony)
	slices.Sort(helped)
	if !slices.Equal(phony, helped) {
		t.Errorf("targets %q, in make help %q", phony, helped)
	}
	use := regexp.MustCompile("(?m)(?:`|^)make ([a-z-]+)")
	for _, name := range files(t) {
		if ext := path.Ext(name); ext != ".md" && ext != ".mdx" && !strings.HasPrefix(name, ".ci/") {
			continue
		}
		for _, m := range use.FindAllStringSubmatch(string(read(t, name)), -1) {
			if !slices.Contains(phony, m[1]) {
				t.Errorf("%s names make %s, which there is not", name, m[1])
			}
		}
	}
}
