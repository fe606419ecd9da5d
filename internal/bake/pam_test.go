// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
)

const password = "@include common-auth"

// oldLine is what images of the first release have instead of the block.
const oldLine = "auth required pam_google_authenticator.so secret=/var/lib/google-authenticator/${USER} user=root noskewadj"

func testBlock(tb testing.TB) pamBlock {
	tb.Helper()
	m := newMachine(tb)
	f := &facts{policy: new(policy.Policy).WithDefaults(), arch: "amd64"}
	block, err := f.block(m.Target)
	if err != nil {
		tb.Fatal(err)
	}
	return block
}

// pamReader reads the files of a PAM directory from a map.
func pamReader(files map[string]string) func(string) ([]byte, error) {
	return func(name string) ([]byte, error) {
		text, ok := files[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return []byte(text), nil
	}
}

func rewrite(tb testing.TB, files map[string]string) (string, error) {
	entries, err := authEntries(pamReader(files), target.PAMService, password)
	if err != nil {
		return "", err
	}
	return rewritePAM(files[target.PAMService], target.PAMService, password, testBlock(tb), entries)
}

func TestRewritePAM(t *testing.T) {
	block := testBlock(t)
	ours := block.text
	spaced := strings.ReplaceAll(ours, "auth ", "auth\t    ")
	tally := "auth required pam_faillock.so preauth deny=5\n"
	forget := "auth requisite pam_faillock.so authsucc\n"
	failed := "auth [default=die] pam_faillock.so authfail\n"
	code := "auth required pam_google_authenticator.so\n"
	old := oldLine + "\n"
	last := strings.LastIndex(strings.TrimSuffix(ours, "\n"), "\n") + 1
	for _, test := range []struct {
		name, text string
		want       string // empty: refused
		where      string
	}{
		{name: "stock", text: "# c\n@include common-auth\naccount required pam_nologin.so\n", want: "# c\n" + ours + "account required pam_nologin.so\n"},
		{name: "no newline at the end", text: "@include common-auth", want: ours},
		{name: "blanks and a comment", text: "\t@include   common-auth # password\n", want: ours},
		{name: "carriage returns in comments", text: "# c\r\n@include common-auth # x\r\n", want: "# c\r\n" + ours},
		{name: "ours already", text: "# c\n" + ours, want: "# c\n" + ours},
		{name: "ours with other blanks", text: spaced, want: spaced},
		{name: "comments that look like lines", text: "#auth sufficient pam_permit.so\n@include common-auth\n", want: "#auth sufficient pam_permit.so\n" + ours},
		{name: "other facilities", text: "@include common-auth\nsession required pam_permit.so\n", want: ours + "session required pam_permit.so\n"},
		{name: "continued", text: "@include \\\n  common-auth\n# c\n", want: ours + "# c\n"},
		{name: "as a guide has it", text: "# c\n#@include common-auth\nauth required pam_google_authenticator.so nullok # code\n", want: "# c\n#@include common-auth\n" + ours},
		{name: "nullok", text: strings.Replace(ours, "noskewadj", "noskewadj nullok", 1), want: ours},
		{name: "sufficient", text: strings.Replace(ours, "requisite", "sufficient", 1), want: ours},
		{name: "the first release's line", text: "# c\n" + old + "session x\n", want: "# c\n" + ours + "session x\n"},
		{name: "the first release's line, with nullok", text: oldLine + " nullok\n", want: ours},
		{name: "other numbers", text: strings.ReplaceAll(ours, "deny=", "deny=9"), want: ours},
		{name: "a line of the block lost", text: ours[last:], want: ours},
		{name: "the last line of the block lost", text: ours[:last], want: ours},
		{name: "the block in another order", text: ours[last:] + ours[:last], want: ours},
		{name: "an entry within the block", text: ours[:last] + "auth required pam_env.so\n" + ours[last:], want: ours + "auth required pam_env.so\n"},
		{name: "the block twice", text: ours + ours, want: ours},
		{name: "the block and the password", text: ours + "@include common-auth\n", want: ours},
		{name: "the password and the block", text: "@include common-auth\n" + ours, want: ours},
		{name: "the block and a guide's line", text: ours + code, want: ours},

		{name: "faillock that can only deny", text: tally + "@include common-auth\n" + forget, want: tally + ours + forget},
		{name: "the same beside the block", text: tally + ours + forget, want: tally + ours + forget},
		{name: "faillock around the password", text: tally + "@include common-auth\n" + failed + forget, want: tally + ours + forget},
		{name: "faillock around a guide's line", text: "auth required pam_env.so\n" + tally + strings.Replace(code, "required", "[success=1 default=bad]", 1) + failed + "auth sufficient pam_faillock.so authsucc\n",
			want: "auth required pam_env.so\n" + tally + ours},
		{name: "faillock that counts after the block", text: ours + failed, want: ours},
		{name: "faillock that accepts before the block", text: "auth sufficient pam_faillock.so preauth\n" + ours, want: ours},
		{name: "env, nologin and faildelay", text: "auth required pam_env.so envfile=/etc/default/locale\nauth requisite pam_nologin.so\n@include common-auth\nauth required pam_faildelay.so delay=3000000\n",
			want: "auth required pam_env.so envfile=/etc/default/locale\nauth requisite pam_nologin.so\n" + ours + "auth required pam_faildelay.so delay=3000000\n"},
		{name: "env beside ours", text: "auth required pam_env.so\n" + ours, want: "auth required pam_env.so\n" + ours},

		{name: "empty", text: "", where: target.PAMService},
		{name: "password twice", text: "@include common-auth\n@include common-auth\n", where: ":2"},
		{name: "a guide's line, not required", text: "auth sufficient pam_google_authenticator.so nullok\n", where: ":1"},
		{name: "a guide's line with a jump", text: "auth [success=1 default=bad] pam_google_authenticator.so nullok\n", where: ":1"},
		{name: "faillock alone", text: tally, where: target.PAMService},
		{name: "faillock in another file", text: "@include tally\n@include common-auth\n", where: "/etc/pam.d/tally:1"},
		{name: "the block in another file", text: "@include block\n@include common-auth\n", where: "/etc/pam.d/block:3"},
		{name: "a guide's line in another file", text: "@include guide\n", where: "/etc/pam.d/guide:1"},
		{name: "a guide's line twice", text: "auth required pam_google_authenticator.so\nauth required pam_google_authenticator.so\n", where: ":2"},
		{name: "a guide's line and the password", text: "@include common-auth\nauth required pam_google_authenticator.so\n", where: ":2"},
		{name: "a guide's line and permit", text: "auth required pam_google_authenticator.so nullok\nauth required pam_permit.so\n", where: ":2"},
		{name: "env, but optional", text: "auth optional pam_env.so\n@include common-auth\n", where: ":1"},
		{name: "nologin that says yes", text: "auth required pam_nologin.so successok\n@include common-auth\n", where: ":1"},
		{name: "another module beside the block", text: ours + "auth sufficient pam_u2f.so\n", where: fmt.Sprintf(":%d", strings.Count(ours, "\n")+1)},
		{name: "a silent faillock", text: "-auth required pam_faillock.so preauth\n@include common-auth\n", where: ":1"},
		{name: "u2f", text: "@include common-auth\nauth required pam_u2f.so\n", where: ":2"},
		{name: "common-auth replaced by hand", text: "auth [success=1 default=ignore] pam_unix.so\nauth requisite pam_deny.so\n", where: ":1"},
		{name: "another module", text: "@include common-auth\n\nauth sufficient pam_u2f.so\n", where: ":3"},
		{name: "a silent module", text: "@include common-auth\n-auth optional pam_x.so\n", where: ":2"},
		{name: "in capitals", text: "@include common-auth\nAUTH sufficient pam_permit.so\n", where: ":2"},
		{name: "over two lines", text: "@include common-auth\naccount required pam_x.so\nauth \\\n sufficient pam_permit.so\n", where: ":3"},
		{name: "in another file", text: "@include extra\n@include common-auth\n", where: "/etc/pam.d/extra:2"},
		{name: "in another file by its whole name", text: "@include /srv/pam/sso\n@include common-auth\n", where: "/srv/pam/sso:1"},
		{name: "relative in another directory", text: "@include /srv/pam/more\n@include common-auth\n", where: "/etc/pam.d/extra:2"},
		{name: "a missing include", text: "@include nothing\n@include common-auth\n", where: ":1"},
		{name: "a carriage return", text: "@include common-auth\r\n", where: ":1"},
		{name: "a carriage return after a backslash", text: "@include common-auth\naccount required pam_x.so \\\r\nauth sufficient pam_permit.so\n", where: ":2"},
		{name: "a comment after a backslash", text: "@include common-auth\naccount required pam_x.so \\ # c\nauth sufficient pam_permit.so\n", where: ":2"},
		{name: "a comment within an entry", text: "account required pam_x.so \\\n# c\n@include common-auth\n", where: ":2"},
		{name: "a blank line within an entry", text: "account required pam_x.so \\\n\n@include common-auth\n", where: ":2"},
		{name: "a NUL", text: "@include common-auth\naccount required pam_x.so\x00\\\nauth sufficient pam_permit.so\n", where: ":2"},
		{name: "a long line", text: "@include common-auth\n#" + strings.Repeat("x", 1022) + "auth sufficient pam_permit.so\n", where: ":2"},
		{name: "an include of two files", text: "@include extra more\n@include common-auth\n", where: ":1"},
		{name: "include of a facility", text: "@include common-auth\nauth include system-auth\n", where: ":2"},
		{name: "a loop", text: "@include loop\n@include common-auth\n", where: "loop"},
	} {
		got, err := rewrite(t, map[string]string{
			target.PAMService:  test.text,
			"/etc/pam.d/guide": "auth required pam_google_authenticator.so\n",
			"/etc/pam.d/extra": "# more\nauth sufficient pam_permit.so\n",
			"/etc/pam.d/tally": failed,
			"/etc/pam.d/block": ours,
			"/etc/pam.d/loop":  "@include loop\n",
			"/srv/pam/sso":     "auth sufficient pam_permit.so\n",
			"/srv/pam/more":    "@include extra\n",
		})
		if test.want == "" {
			if !errors.Is(err, ErrPAM) || !strings.Contains(err.Error(), test.where) {
				t.Errorf("%s: %q, %v; want an error at %q", test.name, got, err, test.where)
			}
			continue
		}
		if err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", test.name, got, err, test.want)
		}
	}
}

// Whatever the file: what comes out has our block as the only thing that
// authenticates, and is not changed again.
func FuzzRewritePAM(f *testing.F) {
	f.Add("@include common-auth\n")
	f.Add("auth required pam_google_authenticator.so secret=/var/lib/google-authenticator/${USER} user=root noskewadj\nsession x")
	f.Add(testBlock(f).text + "auth required pam_faillock.so authsucc\n")
	f.Add("a\\\n@include common-auth #\\\n\r")
	f.Add("auth substack password-auth\nauth include postlogin\nauth include sshd\n")
	f.Add("@include sshd\n@include \\\ncommon-auth")
	f.Fuzz(func(t *testing.T, text string) {
		out, err := rewrite(t, map[string]string{target.PAMService: text})
		if err != nil {
			return
		}
		entries, err := authEntries(pamReader(map[string]string{target.PAMService: out}), target.PAMService, password)
		stray, whole := testBlock(t).stray(entries, target.PAMService)
		if err != nil || !whole || len(stray) > 0 {
			t.Fatalf("%q became %q: %v, %v", text, out, entries, err)
		}
		if again, err := rewrite(t, map[string]string{target.PAMService: out}); err != nil || again != out {
			t.Fatalf("%q became %q, then %q, %v", text, out, again, err)
		}
	})
}
