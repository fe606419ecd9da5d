// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// loginSums are the SHA-256 and the modes of the files of a plan that decide about a login,
// one line each: HASH MODE PATH. With them the agent sees at boot that a file was replaced
// while the server was down, without asking sshd for what would be right.
func (f *facts) loginSums(p *plan) []byte {
	var b strings.Builder
	for _, pf := range f.loginFiles(p) {
		fmt.Fprintln(&b, loginSum(pf))
	}
	return []byte(b.String())
}

func loginSum(f file) string {
	sum := sha256.Sum256(f.data)
	return fmt.Sprintf("%s %04o %s", hex.EncodeToString(sum[:]), f.mode.Perm(), f.path)
}

// replaced lists the files that are not as [facts.loginSums] has them. known is false where
// an older bake has left no sums, or they are damaged.
func replaced(t *target.Target) (paths []string, known bool) {
	b, err := t.ReadFile(target.LoginSums)
	if err != nil || len(b) == 0 {
		return nil, false
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		if len(f) != 3 || !strings.HasPrefix(f[2], "/") {
			return nil, false
		}
		fi, err := t.Lstat(f[2])
		if err == nil && fi.Mode().IsRegular() && owned(fi) {
			if data, err := t.ReadFile(f[2]); err == nil && loginSum(file{path: f[2], data: data, mode: fi.Mode().Perm()}) == strings.TrimSuffix(line, "\n") {
				continue
			}
		}
		paths = append(paths, f[2])
	}
	return paths, true
}

// stateDirIsOurs reports whether the state directory is a real one that only root can enter.
// Nothing is written through a link, or where another user could replace it.
func stateDirIsOurs(t *target.Target) bool {
	fi, err := t.Lstat(target.StateDir)
	return err == nil && fi.IsDir() && owned(fi) && fi.Mode().Perm() == 0o700
}
