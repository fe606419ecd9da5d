// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package acctest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/rootfs"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// lockNames are the values of what the agent's code gives to Lock and LockFile.
var lockNames = map[string]string{
	"StateDir":   target.StateDir,
	"Outbox":     target.Outbox,
	"BannerLock": target.BannerLock,
}

// agentLocks lists the locks in the agent's code by their names in package target.
func agentLocks(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, dir := range []string{"../internal", "../cmd/totp-agent"} {
		err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) != 1 {
					return true
				}
				if sel, ok := call.Fun.(*ast.SelectorExpr); !ok || sel.Sel.Name != "Lock" && sel.Sel.Name != "LockFile" {
					return true
				}
				arg, ok := call.Args[0].(*ast.SelectorExpr)
				if !ok {
					t.Errorf("%s: a lock that is not named by a constant of package target", name)
					return true
				}
				found = append(found, arg.Sel.Name)
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// No user but root can hold a lock that the agent takes: flock(2) needs an open file,
// so none of them can be opened, for reading or writing, by any other user.
func TestNoUserCanLockTheAgent(t *testing.T) {
	t.Parallel()
	m := newMachineOf(t, rootfs.Debian12)
	alice := m.img.people["alice"]
	write(t, m.Path("/etc/totp-agent/image.yaml"),
		"version: 1\nchannels: [{type: file}, {type: ssh-banner, recipients: any}]\nusers: [{name: alice, recipients: ["+alice.recipient+"]}]\n")
	m.ok("enroll")
	m.ok("deliver")
	locks := agentLocks(t)
	if len(locks) < len(lockNames) {
		t.Errorf("found %v in the agent's code", locks)
	}
	for _, l := range locks {
		name, ok := lockNames[l]
		if !ok {
			t.Errorf("%s: not in this test", l)
			continue
		}
		m.must("test", "-e", name)
		for _, how := range []string{"<", ">>", "<>"} {
			out, err := m.Run(t.Context(), "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "sh", "-c", "exec 9"+how+name+" && flock -n 9")
			if err == nil {
				t.Errorf("%s: another user can lock it by %q: %s", name, how, out)
			}
		}
	}
	// The banner was the one: all users can read its directory. A user who locks
	// that keeps no reset from its end.
	hold := m.Command(t.Context(), "setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "flock", target.BannerDir, "sleep", "600")
	if err := hold.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = hold.Process.Kill()
		_ = hold.Wait()
	}()
	m.must("sh", "-c", "for i in $(seq 600); do flock -n "+target.BannerDir+" true || exit 0; sleep 0.1; done; exit 1")
	for _, args := range [][]string{{"reset", "alice"}, {"deliver", "--again"}, {"enroll"}, {"logins"}} {
		m.ok(args...)
	}
}
