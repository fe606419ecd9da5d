// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/access"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// TestLockedOutUsers: an image whose policy names a user that cannot log in is not
// finished. A user without a key, or one that the image does not have, is no
// failure: cloud-init brings both.
func TestLockedOutUsers(t *testing.T) {
	for name, tt := range map[string]struct {
		setup func(m *machine)
		root  bool // the policy names root, and not alice
		want  access.Reason
	}{
		"no key":       {},
		"no account":   {setup: func(m *machine) { m.edit(target.Passwd, "alice:", "zoe:") }},
		"shell":        {setup: func(m *machine) { m.edit(target.Passwd, "/home/alice:/bin/bash", "/home/alice:/bin/false") }, want: access.ShellNoLogin},
		"no shell":     {setup: func(m *machine) { m.edit(target.Passwd, "/home/alice:/bin/bash", "/home/alice:/bin/fish") }, want: access.ShellMissing},
		"expired":      {setup: func(m *machine) { m.put(target.Shadow, "alice:!:19000:0:99999:7::18000:\n", 0o640) }, want: access.AccountExpired},
		"aged":         {setup: func(m *machine) { m.put(target.Shadow, "alice:!:18000:0:90:7:::\n", 0o640) }, want: access.PasswordExpired},
		"another aged": {setup: func(m *machine) { m.put(target.Shadow, "bob:!:18000:0:90:7:::\n", 0o640) }},
		"deny":         {setup: func(m *machine) { m.effective["MaxSessions"] = "10\ndenyusers ali*" }, want: access.DenyUsers},
		"allow":        {setup: func(m *machine) { m.effective["MaxSessions"] = "10\nallowusers bob" }, want: access.AllowUsers},
		"root":         {root: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.put("/bin/bash", "#!", 0o755)
			m.put("/bin/false", "#!", 0o755)
			if tt.setup != nil {
				tt.setup(m)
			}
			o := m.options()
			user := "alice"
			if tt.root {
				user = "root"
			}
			p, err := policy.Parse(policy.Image, "image.yaml", []byte("version: 1\nissuer: I\nusers: [{name: "+user+"}]\n"))
			m.must(err)
			o.Policy = p
			_, err = Run(t.Context(), m.Target, o)
			if tt.want == "" {
				m.must(err)
				return
			}
			if !errors.Is(err, ErrLockedOut) || !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}
