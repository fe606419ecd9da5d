// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// errStateMode is about a PAM state file that the PAM module refuses for its mode or owner.
var errStateMode = errors.New("PAM accepts only a file of root with mode 0400 or 0600")

// checkStateMode applies the PAM module's rule to the state file of that name. The error is
// errStateMode, or that of a file that cannot be looked at.
func checkStateMode(t *target.Target, name string) error {
	file := path.Join(target.PAMStateDir, name)
	info, err := t.Lstat(file)
	if err != nil {
		return err
	}
	mode := info.Mode() & (fs.ModePerm | fs.ModeSetgid | fs.ModeSticky)
	if uid, _, ok := target.Owner(info); mode&^0o200 != 0o400 || ok && uid != os.Geteuid() {
		return fmt.Errorf("%s: mode %v, uid %d: %w", file, info.Mode(), uid, errStateMode)
	}
	return nil
}

// repairModes writes state files again that the PAM module refuses for their mode or owner,
// as a restored backup or a chmod -R leaves them. A new file has no other names and is open
// in no process. The secret stays: the directory is closed to all users but root. The state
// files of other machines are removed by now.
func (r *run) repairModes() error {
	return r.eachState(func(name, file string) error {
		refused := checkStateMode(r.t, name)
		if strings.Contains(name, "~") || !errors.Is(refused, errStateMode) {
			return nil
		}
		if _, err := readState(r.t, name); err != nil {
			return nil // the user's turn comes
		}
		b, err := r.t.ReadFile(file)
		if err != nil {
			return err
		}
		if err := r.t.WriteFile(file, b, 0o400); err != nil {
			return err
		}
		fmt.Fprintf(r.Log, "enroll: %v; its owner is root and its mode is 0400 now\n", refused)
		return nil
	})
}
