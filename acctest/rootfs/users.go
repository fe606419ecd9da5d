// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package rootfs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// User is an account that [Root.AddUser] makes.
type User struct {
	Name       string
	Keys       []string // lines of authorized_keys
	Password   string   // empty: locked, as cloud-init leaves it
	SudoNoPass bool     // may run everything, without a password
}

// AddUser makes an account, or changes one that is there (root among them): its
// password, its authorized_keys and its right to sudo.
func (r *Root) AddUser(ctx context.Context, u User) error {
	if _, err := r.Run(ctx, "id", "-u", u.Name); err != nil {
		if _, err := r.Run(ctx, "useradd", "--create-home", "--shell", "/bin/bash", u.Name); err != nil {
			return err
		}
	}
	if u.Password != "" {
		cmd := r.Command(ctx, "chpasswd")
		cmd.Stdin = strings.NewReader(u.Name + ":" + u.Password + "\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("chpasswd %s: %w\n%s", u.Name, err, tail(string(out), 500))
		}
	}
	if u.SudoNoPass {
		name := r.Path("/etc/sudoers.d/90-" + u.Name)
		if err := os.WriteFile(name, []byte(u.Name+" ALL=(ALL) NOPASSWD:ALL\n"), 0o440); err != nil {
			return err
		}
	}
	return r.authorize(ctx, u)
}

func (r *Root) authorize(ctx context.Context, u User) error {
	entry, err := r.Run(ctx, "getent", "passwd", u.Name)
	if err != nil {
		return err
	}
	f := strings.Split(strings.TrimSpace(entry), ":")
	if len(f) != 7 {
		return fmt.Errorf("passwd entry of %s: %q has not seven fields", u.Name, entry)
	}
	uid, err := strconv.Atoi(f[2])
	if err != nil {
		return err
	}
	gid, err := strconv.Atoi(f[3])
	if err != nil {
		return err
	}
	dir := r.Path(filepath.Join(f[5], ".ssh"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	name := filepath.Join(dir, "authorized_keys")
	if err := os.WriteFile(name, []byte(strings.Join(u.Keys, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	for _, name := range []string{dir, name} {
		if err := os.Chown(name, uid, gid); err != nil {
			return err
		}
	}
	return nil
}
