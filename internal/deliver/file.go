// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package deliver

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"time"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

func init() {
	Register(Driver{
		Type:     policy.ChannelFile,
		Deadline: 10 * time.Second,
		Check:    func(policy.Channel) error { return nil },
		New: func(_ policy.Channel, t *target.Target) Channel {
			return file{t}
		},
	})
}

// file leaves the armored envelope in a directory that root alone can read.
type file struct{ t *target.Target }

func (file) Name() string { return policy.ChannelFile }

func (file) Acknowledged() bool { return false }

// Send does not look at ctx: writing a small file cannot be interrupted.
func (f file) Send(_ context.Context, item Item) error {
	data, err := armored(item)
	if err != nil {
		return err
	}
	for _, dir := range []string{target.StateDir, target.Envelopes} {
		if err := f.t.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	return f.t.WriteFile(f.path(item.Meta), data, 0o600)
}

func (file) path(m Meta) string { return path.Join(target.Envelopes, m.User+"."+m.ID+".age") }

// Withdraw removes the file.
func (f file) Withdraw(m Meta) error {
	if err := f.t.Remove(f.path(m)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
