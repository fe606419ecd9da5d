// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// moduleFile tells whether a file is there for cloud-init's module alone.
func moduleFile(name string) bool {
	return name == target.CloudModule || name == target.SystemdUnitDir+"/"+target.ModuleService
}

const (
	moduleName  = "totp"
	moduleLists = "cloud_init_modules"
)

// askList has the image's own cloud-init merge its settings, but for one file,
// and prints the list of modules as JSON. Every version reads the directory by
// os.listdir.
const askList = `import json, os, sys
from cloudinit import util
real = os.listdir
os.listdir = lambda *where: [n for n in real(*where) if n != sys.argv[1]]
print(json.dumps(util.read_conf_with_confd("` + target.CloudSettings + `").get("` + moduleLists + `")))
`

// planList adds the settings that name our module beside those that the image's
// cloud-init runs already, where the policy asks for it.
//
// A list of a later file replaces that of an earlier one, and no way of merging
// that a file asks for changes this. So ours is the whole list. The module comes
// last: users and host keys are there by then.
func (f *facts) planList(ctx context.Context, t *target.Target, p *plan) error {
	if !f.policy.CloudInitModuleListed {
		return nil
	}
	modules, err := readList(ctx, t, path.Base(target.CloudModuleList))
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("# Written by totp-agent when the image was built: cloud-init's modules of that\n" +
		"# day, and ours. A list in a later file, or in user-data, replaces this one.\n" + moduleLists + ":\n")
	for _, m := range append(slices.DeleteFunc(modules, isOurs), json.RawMessage(`"`+moduleName+`"`)) {
		b.WriteString("  - " + string(m) + "\n") // JSON is YAML
	}
	p.files = append(p.files, file{path: target.CloudModuleList, mode: 0o644, data: []byte(b.String()), unit: true})
	return nil
}

// readList asks the image's cloud-init for the modules that it runs by its
// settings, those of one file left out.
func readList(ctx context.Context, t *target.Target, without string) ([]json.RawMessage, error) {
	out, err := t.Run(ctx, target.Python, "-B", "-c", askList, without)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", target.CloudSettings, ErrCloudInit, err)
	}
	var modules []json.RawMessage
	if err := json.Unmarshal(out, &modules); err != nil || len(modules) == 0 {
		return nil, fmt.Errorf("%s: %w: it has no list %s that ours could be the end of", target.CloudSettings, ErrCloudInit, moduleLists)
	}
	return modules, nil
}

// isOurs recognises the module in each way that a list can name it.
func isOurs(entry json.RawMessage) bool {
	var name string
	var call []any
	var mapping struct{ Name string }
	switch {
	case json.Unmarshal(entry, &name) == nil:
	case json.Unmarshal(entry, &call) == nil && len(call) > 0:
		name, _ = call[0].(string)
	case json.Unmarshal(entry, &mapping) == nil:
		name = mapping.Name
	}
	return strings.TrimPrefix(name, "cc_") == moduleName
}

// tryModule has the image's Python load the module, as cloud-init will: a module
// that cannot be loaded would stop a whole stage.
const tryModule = `import cc_totp
assert callable(cc_totp.handle) and cc_totp.meta["distros"] == ["all"] and not hasattr(cc_totp, "schema")
`

// module asks the image whether the module works there.
func (b *baker) module(ctx context.Context) (string, error) {
	if !b.facts.policy.CloudInitModule {
		return "none wanted", nil
	}
	return target.CloudModule + " can be loaded", b.facts.moduleWorks(ctx, b.t)
}

// cloudInit tells whether there is the program that the module is for.
func (f *facts) cloudInit(t *target.Target) error {
	if f.policy.CloudInitModule && !t.Exists(target.CloudInit) {
		return fmt.Errorf("cloud_init_module: %s is missing: %w; install cloud-init before the bake, or leave the key out", target.CloudInit, ErrCloudInit)
	}
	return nil
}

func (f *facts) moduleWorks(ctx context.Context, t *target.Target) error {
	if _, err := t.Run(ctx, target.Python, "-B", "-c", tryModule); err != nil {
		return fmt.Errorf("%s: %w: %w", target.CloudModule, ErrCloudInit, err)
	}
	if !f.policy.CloudInitModuleListed {
		return nil
	}
	modules, err := readList(ctx, t, "")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(modules, isOurs) {
		return fmt.Errorf("%s: %w: a list %s in another file counts; name that file so that it sorts before ours", target.CloudModuleList, ErrCloudInit, moduleLists)
	}
	return nil
}
