// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

type runner func(argv []string) (string, string, error)

func (r runner) Run(_ context.Context, argv []string) ([]byte, []byte, error) {
	out, errs, err := r(argv)
	return []byte(out), []byte(errs), err
}

func TestRunError(tt *testing.T) {
	t := open(tt)
	t.SetRunner(runner(func([]string) (string, string, error) {
		return "", strings.Repeat("noise\n", 20) + "E: Unable to locate package x\n", errors.New("exit status 100")
	}))
	_, err := t.Run(tt.Context(), "apt-get", "install", "x")
	ce, ok := errors.AsType[*CommandError](err)
	if !ok || ce.Code != -1 || !slices.Equal(ce.Argv, []string{"apt-get", "install", "x"}) {
		tt.Fatalf("got %#v", err)
	}
	if lines := strings.Split(ce.Stderr, "\n"); len(lines) != 8 || lines[7] != "E: Unable to locate package x" {
		tt.Errorf("stderr %q", ce.Stderr)
	}
}

// Commands of the guest are looked up in the guest, not on the host.
func TestLookPath(tt *testing.T) {
	t := open(tt)
	put(tt, t, "/usr/bin/systemctl", "", 0o755)
	put(tt, t, "/usr/sbin/plain", "", 0o644)
	link(tt, t, "usr/bin", "/bin")
	for name, want := range map[string]bool{
		"systemctl":          true,
		"/usr/bin/systemctl": true,
		"/bin/systemctl":     true,
		"plain":              false,
		"sh":                 false,
		"/bin/sh":            false,
	} {
		if got := t.HasCommand(name); got != want {
			tt.Errorf("%s: %v", name, got)
		}
	}
	if _, err := t.Run(tt.Context(), "sh", "-c", "true"); !errors.Is(err, exec.ErrNotFound) {
		tt.Errorf("sh ran: %v", err)
	}
}

func TestOpenSSHVersion(tt *testing.T) {
	fail := errors.New("exit status 1")
	for _, test := range []struct {
		stdout, stderr string
		err            error
		want           OpenSSH
		fails          error
	}{
		{stderr: "OpenSSH_9.2, OpenSSL 3.0.19 27 Jan 2026\n", want: OpenSSH{9, 2}},
		{stderr: "OpenSSH_10.0p2 Debian-7, OpenSSL 3.5.1\n", want: OpenSSH{10, 0}},
		{stderr: "unknown option -- V\nOpenSSH_8.4p1 Debian-5+deb11u3, OpenSSL 1.1.1w\nusage: sshd [-46D]\n", err: fail, want: OpenSSH{8, 4}},
		{stderr: "dropbear v2022.83\n", fails: ErrNoOpenSSH},
		{err: fail, fails: ErrNoOpenSSH},
	} {
		t := open(tt)
		t.SetRunner(runner(func(argv []string) (string, string, error) { return test.stdout, test.stderr, test.err }))
		got, err := t.OpenSSH(tt.Context())
		if got != test.want || !errors.Is(err, test.fails) {
			tt.Errorf("%q: %v, %v; want %v, %v", test.stderr, got, err, test.want, test.fails)
		}
	}
	if v := (OpenSSH{9, 2}); v.AtLeast(9, 3) || v.AtLeast(10, 0) || !v.AtLeast(9, 2) || !v.AtLeast(8, 9) || v.String() != "9.2" {
		tt.Error("versions do not compare")
	}
}

func TestOS(tt *testing.T) {
	for _, test := range []struct {
		name, text string
		want       OS
	}{
		{"debian", "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n", OS{"debian", "12", "Debian GNU/Linux 12 (bookworm)"}},
		{"quotes", "ID='x y'\nPRETTY_NAME=\"a \\\"b\\\" \\\\ \\n\"\r\n# ID=z\n", OS{"x y", "", `a "b" \ \n`}},
		{"junk", "ID\n=\nVERSION_ID=\"", OS{"", "\"", ""}},
	} {
		if got := parseOSRelease(test.text); got != test.want {
			tt.Errorf("%s: %+v", test.name, got)
		}
	}
	t := open(tt)
	if _, err := t.OS(); !errors.Is(err, os.ErrNotExist) {
		tt.Errorf("none: %v", err)
	}
	put(tt, t, "/usr/lib/os-release", "ID=debian\n", 0o644)
	if o, err := t.OS(); err != nil || o.ID != "debian" {
		tt.Errorf("the vendor's: %v, %v", o, err)
	}
	link(tt, t, "../usr/lib/os-release", "/etc/os-release")
	if o, err := t.OS(); err != nil || o.ID != "debian" {
		tt.Errorf("linked: %v, %v", o, err)
	}
}

func FuzzOSRelease(f *testing.F) {
	f.Add("ID=debian\nVERSION_ID=\"12\"\n")
	f.Add("ID=\"\\\"\nID='")
	f.Fuzz(func(tt *testing.T, s string) { parseOSRelease(s) })
}

func TestArch(tt *testing.T) {
	elf := func(class, data, machine byte) string {
		h := make([]byte, 64)
		copy(h, "\x7fELF")
		h[4], h[5], h[18] = class, data, machine
		return string(h)
	}
	for _, test := range []struct {
		content, want string
		err           error
	}{
		{elf(2, 1, 62), "amd64", nil},
		{elf(2, 1, 183), "arm64", nil},
		{elf(1, 1, 3), "", ErrArch},
		{elf(2, 1, 243), "", ErrArch},
		{"#!/bin/sh\n# not a program", "", ErrArch},
		{"", "", ErrArch},
	} {
		t := open(tt)
		put(tt, t, Shell, test.content, 0o755)
		if got, err := t.Arch(); got != test.want || !errors.Is(err, test.err) {
			tt.Errorf("%.20q: %q, %v", test.content, got, err)
		}
	}
}

func TestHostname(tt *testing.T) {
	for text, want := range map[string]string{"web1\n": "web1", "# comment\n\n web2 \n": "web2", "\n": "localhost"} {
		t := open(tt)
		put(tt, t, HostnameFile, text, 0o644)
		if got, err := t.Hostname(); err != nil || got != want {
			tt.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
