// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

// Package house tests the rules of the repository as a whole: which package may
// import which, what each file begins with, and that documentation and examples
// are true. It holds tests only, and reads the sources of the module it is in.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/packer-plugin-totp/packer-plugin-totp"

// pkg is what `go list -json` tells of a package.
type pkg struct {
	Dir, ImportPath, Name string
	GoFiles, CgoFiles     []string
	IgnoredGoFiles        []string
	TestGoFiles           []string
	XTestGoFiles          []string
	Imports               []string
	Standard              bool
}

// Short returns the import path within the module, "." for its top.
func (p pkg) Short() string {
	if p.ImportPath == module {
		return "."
	}
	return strings.TrimPrefix(p.ImportPath, module+"/")
}

// root returns the top of the checkout.
var root = sync.OnceValue(func() string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		panic(err)
	}
	return dir
})

// list runs go list at the top of the checkout.
func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=Dir,ImportPath,Name,GoFiles,CgoFiles,IgnoredGoFiles,TestGoFiles,XTestGoFiles,Imports,Standard"}, args...)...)
	cmd.Dir = root()
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %q: %v\n%s", args, err, errOut.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// files returns what git has or would add, as slash-separated paths from the
// top. Outside of a git checkout the tests that need it are skipped.
func files(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	cmd.Dir = root()
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("this is no git checkout: %v", err)
	}
	var names []string
	for name := range strings.SplitSeq(string(out), "\x00") {
		// A file that is deleted and still in the index is listed as well.
		if st, err := os.Lstat(filepath.Join(root(), name)); name != "" && err == nil && st.Mode().IsRegular() {
			names = append(names, name)
		}
	}
	return names
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root(), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// generated tells whether a file says of itself that a program wrote it, as
// go help generate has it.
func generated(data []byte) bool {
	head, _, _ := bytes.Cut(data, []byte("\npackage "))
	for line := range bytes.Lines(head) {
		line = bytes.TrimSpace(line)
		if bytes.HasPrefix(line, []byte("// Code generated ")) && bytes.HasSuffix(line, []byte(" DO NOT EDIT.")) {
			return true
		}
	}
	return false
}

// TestLicence: each Go file begins with whose it is and under which licence.
func TestLicence(t *testing.T) {
	const header = "// Copyright the packer-plugin-totp authors\n// SPDX-License-Identifier: MPL-2.0\n\n"
	n := 0
	for _, name := range files(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		n++
		if data := read(t, name); !bytes.HasPrefix(data, []byte(header)) && !generated(data) {
			t.Errorf("%s does not begin with the licence header", name)
		}
	}
	if n == 0 {
		t.Error("no Go files found")
	}
	if !bytes.HasPrefix(read(t, "LICENSE"), []byte("Mozilla Public License Version 2.0\n")) {
		t.Error("LICENSE is not the MPL-2.0")
	}
}

// TestPackageDoc: each package has exactly one package comment, which says what
// it promises. A licence header must not have become one.
func TestPackageDoc(t *testing.T) {
	for _, p := range list(t, "./...") {
		names := slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles)
		if len(names) == 0 {
			names = slices.Concat(p.TestGoFiles, p.XTestGoFiles) // a package of tests only
		}
		var docs []string
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") && len(p.GoFiles) > 0 {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Error(err)
				continue
			}
			if f.Doc == nil {
				continue
			}
			docs = append(docs, name)
			text := f.Doc.Text()
			if strings.Contains(text, "SPDX") || strings.Contains(text, "Copyright") {
				t.Errorf("%s/%s: the licence header is the package comment; put a blank line after it", p.Short(), name)
			}
			if p.Name != "main" && !strings.HasPrefix(text, "Package "+strings.TrimSuffix(p.Name, "_test")+" ") {
				t.Errorf("%s/%s: the package comment begins with %.30q", p.Short(), name, text)
			}
		}
		if len(docs) != 1 {
			t.Errorf("%s has %d package comments %q, want one", p.Short(), len(docs), docs)
		}
	}
}

// TestNoPathsOfThisMachine: nothing that a clone holds says where it was made.
func TestNoPathsOfThisMachine(t *testing.T) {
	out, err := exec.Command("go", "env", "GOMODCACHE", "GOCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	places := strings.Fields(string(out))
	// A checkout at /src or in a temporary directory's top proves nothing.
	if strings.Count(root(), string(filepath.Separator)) > 1 {
		places = append(places, root())
	}
	for _, name := range files(t) {
		data := read(t, name)
		for _, place := range places {
			if bytes.Contains(data, []byte(place)) {
				t.Errorf("%s contains %q", name, place)
			}
		}
	}
}

// calls returns the selectors such as time.Now that a package's own files use,
// with the position of the first use.
func calls(t *testing.T, p pkg) map[string]string {
	t.Helper()
	used := make(map[string]string)
	for _, name := range p.GoFiles {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := sel.X.(*ast.Ident); ok {
					key := x.Name + "." + sel.Sel.Name
					if _, seen := used[key]; !seen {
						pos := fset.Position(sel.Pos())
						used[key] = p.Short() + "/" + filepath.Base(pos.Filename) + ":" + pos.String()[strings.LastIndexByte(pos.String(), ':')+1:]
					}
				}
			}
			return true
		})
	}
	return used
}
