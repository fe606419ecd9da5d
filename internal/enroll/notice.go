// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package enroll

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

// noticePrefix begins every notice.
const noticePrefix = "totp-agent: no user can log in to this server over SSH: "

// Text is what console and banner say where the problem keeps all users out.
func (k Kind) Text() string {
	text := noticePrefix + k.What + ".\n" +
		"To end this, as root on the console: " + k.Fix + "\n"
	if strings.Contains(k.Fix, "age1...") {
		text += "USER is the user's name. age1... is the line that \"totpctl keygen\" prints on your own computer.\n"
	}
	return text + "What it means: docs/recovery.md#" + k.Code + " in the repository packer-plugin-totp; details: totp-agent status\n"
}

// notice sets the status's problems, and its notice where no user can log in over SSH.
// It goes to the console and, before login, to every client that reaches port 22: so it
// names no user and no recipient.
func (r *run) notice(st *Status) {
	space, disk := diskState(r.t, true, r.Log)
	st.Problems = st.problems(space, disk)
	if r.exempt || disk == nil && r.usable(st) && !st.lockedOut() {
		return
	}
	st.NoticeCode = CodeEnrollFailed
	// The disk explains everything else, and CodeNoUser is true where nothing else is.
	i := slices.IndexFunc(st.Problems, func(p Problem) bool { return kindOf(p.Code).Notice })
	if i >= 0 {
		st.NoticeCode = st.Problems[i].Code
	}
	st.Notice = kindOf(st.NoticeCode).Text()
}

// usable reports whether some user is enrolled who can use it.
func (r *run) usable(st *Status) bool {
	lost := map[string]bool{} // a state file whose card is gone
	for _, u := range st.Users {
		lost[u.Name] = !u.Enrolled
	}
	usable := false
	_ = r.eachState(func(name, _ string) error {
		_, err := readState(r.t, name)
		usable = usable || err == nil && !strings.Contains(name, "~") && !lost[name] && checkStateMode(r.t, name) == nil
		return nil
	})
	return usable
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
