// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// prepareBanner makes the place for envelopes in sshd's banner, if the policy shows
// any there: sshd is told of it when it starts, and reads it at each connection. A
// machine on which that fails does without this channel.
func (r *run) prepareBanner(ctx context.Context) {
	if !slices.ContainsFunc(r.policy.Channels, func(c policy.Channel) bool { return c.Type == policy.ChannelSSHBanner }) {
		if err := r.t.RemoveAll(target.BannerDir); err != nil {
			fmt.Fprintf(r.Log, "enroll: %v\n", err)
		}
		return
	}
	err := errors.Join(r.t.Mkdir(target.RunDir, 0o755), r.t.Mkdir(target.BannerDir, 0o755))
	if err == nil {
		// What is made in there has the directory's label.
		err = r.labelNotice(ctx, target.BannerDir)
	}
	if err == nil {
		err = r.composeBanner()
	}
	if err != nil {
		fmt.Fprintf(r.Log, "enroll: %s: %v\n", policy.ChannelSSHBanner, err)
	}
}

// composeBanner makes the text for sshd, with what it would show without us.
func (r *run) composeBanner() error {
	var own []byte
	file, err := r.t.SSHDBanner()
	if err == nil && file != "" {
		own, err = r.t.ReadFile(file)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(r.Log, "enroll: sshd's own banner is not shown: %v\n", err)
	}
	return r.outbox.ComposeBanner(own)
}
