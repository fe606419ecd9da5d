// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package house

import (
	"go/version"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// may says which packages of ours each package may import: downwards only. A
// name that ends in /... stands for all below it.
var may = map[string][]string{
	".":                    {"provisioner/totp", "datasource/userdata", "version"},
	"provisioner/totp":     {"cloudinit", "internal/policy", "internal/agentbin"},
	"datasource/userdata":  {"cloudinit", "internal/policy", "internal/agentbin"},
	"cmd/totp-agent":       {"internal/bake", "internal/clean", "internal/enroll", "internal/deliver", "internal/policy", "internal/selftest", "internal/target", "secrets/seal", "version"},
	"cmd/totpctl":          {"cloudinit", "secrets/...", "internal/deliver/console", "internal/deliver/receive", "internal/seed", "internal/verify", "internal/agentbin", "cmd/totpctl/page", "version"},
	"cmd/totpctl/page":     {},
	"cmd/totpctl/page/...": {"cmd/totpctl/page"}, // node, for tests

	"internal/bake":            {"secrets/...", "templates", "internal/access", "internal/clean", "internal/policy", "internal/systemd", "internal/target", "version"},
	"internal/clean":           {"internal/policy", "internal/target"},
	"internal/selftest":        {"secrets/otp", "internal/bake", "internal/policy", "internal/target"},
	"internal/access":          {"internal/target"},
	"internal/enroll":          {"secrets/...", "templates", "internal/access", "internal/faillock", "internal/policy", "internal/target", "internal/deliver", "version"},
	"internal/deliver":         {"secrets/...", "templates", "internal/policy", "internal/target", "internal/deliver/console", "internal/deliver/frame"},
	"internal/deliver/console": {"internal/deliver/frame"},
	"internal/deliver/receive": {"internal/deliver/frame", "secrets/seal"},
	"internal/deliver/frame":   {},
	"internal/policy":          {"secrets/card", "secrets/otp", "secrets/seal"},
	"internal/systemd":         {"internal/target"},
	"internal/target":          {},
	"internal/target/...":      {"internal/target"}, // fakes, for tests
	"internal/agentbin":        {},
	"internal/faillock":        {},
	"internal/release":         {"version"},
	"internal/seed":            {},
	"internal/verify":          {},                                              // looks at servers from outside, as a stranger
	"cloudinit":                {"internal/policy", "templates", "secrets/..."}, // policy is as pure as it is
	"templates":                {},
	"secrets/...":              {},
	"version":                  {},
	"acctest/...":              {"..."}, // the lab may look at everything, and nothing may look at it
	"acctest":                  {"..."},
}

func TestImportsRunDownwards(t *testing.T) {
	for _, p := range list(t, "./...") {
		allowed, ok := rule(p.Short())
		if !ok {
			t.Errorf("%s is not in the table of what may import what; see docs/rationale.md before you add it", p.Short())
			continue
		}
		for _, imp := range p.Imports {
			short, ours := strings.CutPrefix(imp, module+"/")
			if !ours || slices.ContainsFunc(allowed, func(pattern string) bool { return matches(pattern, short) }) {
				continue
			}
			t.Errorf("%s imports %s, and may import only %q", p.Short(), short, allowed)
		}
	}
}

func rule(name string) ([]string, bool) {
	if allowed, ok := may[name]; ok {
		return allowed, true
	}
	for pattern, allowed := range may {
		if strings.HasSuffix(pattern, "/...") && matches(pattern, name) {
			return allowed, true
		}
	}
	return nil, false
}

func matches(pattern, name string) bool {
	if pattern == "..." {
		return true
	}
	dir, below := strings.CutSuffix(pattern, "/...")
	return name == pattern || below && strings.HasPrefix(name, dir+"/")
}

// TestWithoutPackerSDK: the SDK and what it brings stay out of the agent, of
// totpctl and of the packages that others import, whatever way they would come.
func TestWithoutPackerSDK(t *testing.T) {
	roots := []string{"./cmd/totp-agent", "./cmd/totpctl", "./templates", "./secrets/...", "./internal/agentbin", "./version"}
	if _, err := os.Stat(filepath.Join(root(), "cloudinit")); err == nil {
		roots = append(roots, "./cloudinit")
	}
	for _, name := range roots {
		for _, p := range list(t, "-deps", name) {
			for bad, why := range map[string]string{
				"github.com/hashicorp/": "only main, provisioner and datasource may use the Packer SDK",
				"github.com/zclconf/":   "go-cty comes with the Packer SDK",
			} {
				if strings.HasPrefix(p.ImportPath, bad) {
					t.Errorf("%s depends on %s: %s", name, p.ImportPath, why)
				}
			}
		}
	}
}

// TestAgentImports: what would make the agent larger than it may be. A template
// calls methods by their names, so that the linker must keep every exported one.
func TestAgentImports(t *testing.T) {
	for _, p := range list(t, "-deps", "./cmd/totp-agent") {
		for _, bad := range []string{"text/template", "html/template"} {
			if slices.Contains(p.Imports, bad) {
				t.Errorf("the agent has %s, by %s; see make size", bad, p.ImportPath)
			}
		}
	}
}

// TestAgentStart: the agent, which runs at every boot for a few milliseconds, does
// not compile regular expressions before it knows whether it needs them.
func TestAgentStart(t *testing.T) {
	atStart := regexp.MustCompile(`(?m)^(?:var|\t)\s*\w+ += regexp\.MustCompile`)
	for _, p := range list(t, "-deps", "./cmd/totp-agent") {
		if !strings.HasPrefix(p.ImportPath, module+"/") {
			continue
		}
		for _, name := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if atStart.Match(text) {
				t.Errorf("%s/%s compiles a regular expression at the start of every program; use sync.OnceValue, or none", p.Short(), name)
			}
		}
	}
}

// TestPure: public packages touch no file, process or network, and get clock and
// randomness from their caller.
func TestPure(t *testing.T) {
	badImports := []string{"os", "os/exec", "os/signal", "net/http", "syscall", "log", "log/slog", "math/rand", "math/rand/v2", "plugin", "unsafe", "golang.org/x/sys/unix"}
	badCalls := []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.NewTimer", "time.NewTicker",
		"net.Dial", "net.DialTimeout", "net.Listen", "net.ListenPacket", "net.LookupHost", "net.LookupIP", "net.LookupAddr", "net.ResolveTCPAddr"}
	for _, p := range list(t, "./...") {
		if !slices.ContainsFunc([]string{"secrets/...", "templates", "cloudinit"}, func(pattern string) bool { return matches(pattern, p.Short()) }) {
			continue
		}
		for _, imp := range p.Imports {
			if slices.Contains(badImports, imp) {
				t.Errorf("%s imports %s", p.Short(), imp)
			}
		}
		used := calls(t, p)
		for _, call := range badCalls {
			if at, ok := used[call]; ok {
				t.Errorf("%s uses %s", at, call)
			}
		}
	}
}

// TestGuestPaths: the paths of a guest are the same wherever the plugin runs, so
// that what writes them must not use the host's separators. (internal/target
// alone knows a path of the host: where the guest's root is.)
func TestGuestPaths(t *testing.T) {
	for _, p := range list(t, "./internal/...", "./templates/...") {
		if slices.Contains([]string{"internal/bake", "internal/enroll", "internal/deliver", "internal/policy", "internal/selftest", "templates"}, p.Short()) &&
			slices.Contains(p.Imports, "path/filepath") {
			t.Errorf("%s imports path/filepath; use path", p.Short())
		}
	}
}

// TestScratchModule: our public packages can be imported by a module that has
// none of our replace lines.
func TestScratchModule(t *testing.T) {
	dir := t.TempDir()
	var imports strings.Builder
	for _, p := range list(t, "./...") {
		if matches("secrets/...", p.Short()) || p.Short() == "cloudinit" {
			imports.WriteString("import _ \"" + p.ImportPath + "\"\n")
		}
	}
	goVersion := regexp.MustCompile(`(?m)^go .*$`).FindString(string(read(t, "go.mod")))
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("main.go", "package main\n\n"+imports.String()+"\nfunc main() {}\n")
	write("go.mod", "module example.org/scratch\n\n"+goVersion+"\n\nrequire "+module+" v0.0.0\n\nreplace "+module+" => "+root()+"\n")
	write("go.sum", string(read(t, "go.sum")))
	cmd := exec.Command("go", "build", "-mod=mod", "-o", filepath.Join(dir, "scratch"), ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("go build in a scratch module: %v\n%s", err, out)
	}
}

// TestGoMod: one replace line, which the Packer SDK needs, and one Go version
// everywhere.
func TestGoMod(t *testing.T) {
	mod := string(read(t, "go.mod"))
	replaces := regexp.MustCompile(`(?m)^.* => .*$`).FindAllString(mod, -1)
	if want := []string{"replace github.com/zclconf/go-cty => github.com/nywilken/go-cty v1.13.3"}; !slices.Equal(replaces, want) {
		t.Errorf("go.mod replaces %q, want %q", replaces, want)
	}
	minimum := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(mod)[1]
	used := strings.TrimSpace(string(read(t, ".go-version")))
	if version.Compare("go"+used, "go"+minimum) < 0 {
		t.Errorf(".go-version is %s, older than the %s of go.mod", used, minimum)
	}
	if readme := string(read(t, "README.md")); !strings.Contains(readme, "Go "+minimum+" or newer") {
		t.Errorf("README.md does not state \"Go %s or newer\"", minimum)
	}
}
