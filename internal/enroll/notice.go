// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// notice sets the status's notice where something must be said to people who
// cannot read the journal: nobody can log in over SSH, or a layer was refused.
// It goes to the console and, before login, to whoever reaches port 22: so it
// names no user and no recipient.
func (r *run) notice(st *Status) {
	enrolled := false
	_ = r.eachState(func(name, _ string) error {
		_, err := readState(r.t, name)
		enrolled = enrolled || err == nil && !strings.Contains(name, "~")
		return nil
	})
	lockedOut := st.lockedOut()
	if enrolled && !lockedOut || r.exempt {
		return
	}
	reason := "no account of this server has a recipient for its enrollment card"
	switch {
	case !r.here.known && r.here.primary == absent:
		reason = "the identity of this server is unknown in this boot (its cloud-init datasource did not answer)"
	case st.Error != "":
		reason = "the enrollment failed in this boot"
	case len(st.RefusedLayers) > 0:
		reason = "the policy in this server's user-data or vendor-data was refused"
	case lockedOut:
		reason = "no enrolled user can log in because of the account, the key or the settings of sshd"
	case len(st.Users) == 0:
		reason = "there is no account to enroll on this server"
	}
	st.Notice = "totp-agent: nobody can log in to this server over SSH yet: " + reason + ".\n" +
		"What to do: as root on the console, run \"totp-agent status\"; see also \"How to get back in\" in the manual.\n"
}

// writeNotice puts the notice where sshd's drop-in and people find it, and
// removes it when there is none. Where envelopes are shown in sshd's banner, it is
// part of that.
func (r *run) writeNotice(ctx context.Context, text string) error {
	conf, shown := "", []string{target.NoticeConf}
	if text == "" {
		if err := remove(r.t, target.Notice); err != nil {
			return err
		}
	} else {
		if err := r.t.WriteFile(target.Notice, []byte(text), 0o644); err != nil {
			return err
		}
		conf, shown = target.Notice, []string{target.Notice, target.NoticeConf}
	}
	if r.t.IsDir(target.BannerDir) {
		if err := r.composeBanner(); err != nil {
			return err
		}
		conf = target.Banner
	}
	if conf == "" {
		return remove(r.t, target.NoticeConf)
	}
	if err := r.t.WriteFile(target.NoticeConf, []byte("Banner "+conf+"\n"), 0o644); err != nil {
		return err
	}
	if err := r.labelNotice(ctx, shown...); err != nil {
		return err
	}
	if text == "" {
		return nil
	}
	fmt.Fprint(r.Log, text)
	if r.Console != nil {
		// A console that cannot be written is no reason to fail: the banner
		// and the status say the same.
		_, _ = fmt.Fprint(r.Console, "\r\n"+strings.ReplaceAll(text, "\n", "\r\n"))
	}
	return nil
}

// labelNotice lets sshd read files of ours where SELinux rules: under /run it may read
// its own files only, and one that its configuration includes and that it may not
// read keeps it from starting. Then it does without the banner.
func (r *run) labelNotice(ctx context.Context, names ...string) error {
	if !r.t.SELinux() {
		return nil
	}
	if err := r.t.Label(ctx, target.SSHDRunType, names...); err != nil {
		fmt.Fprintf(r.Log, "no banner in sshd: %v\n", err)
		return remove(r.t, target.NoticeConf)
	}
	return nil
}

func remove(t *target.Target, name string) error {
	if err := t.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
