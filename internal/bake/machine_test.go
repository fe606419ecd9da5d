// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package bake

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/internal/policy"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target"
	"github.com/packer-plugin-totp/packer-plugin-totp/internal/target/targettest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// A machine is a Debian 12 as far as bake looks at one, with fakes for its
// commands.
type machine struct {
	*target.Target
	*targettest.Recorder
	tb        testing.TB
	openSSH   string
	algs      map[string]string            // ssh -Q; others: all that are wanted
	fail      map[string]targettest.Answer // command, by its beginning
	effective map[string]string            // what sshd -T says otherwise than wanted
	keyAlone  []string                     // users of whom sshd wants no code
	apt       func(argv []string)          // what apt-get does
}

const (
	elfAMD64 = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00 a program"
	elfARM64 = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00 a program"
	module   = "/lib/x86_64-linux-gnu/security/pam_google_authenticator.so"
	tally    = "/lib/x86_64-linux-gnu/security/pam_faillock.so"
	debian12 = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"
	unit     = "/lib/systemd/system/ssh.service"
)

func stock(tb testing.TB, name string) string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "debian12-"+name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(b)
}

func newMachine(tb testing.TB) *machine {
	tb.Helper()
	t, r := targettest.New(tb)
	m := &machine{Target: t, Recorder: r, tb: tb, openSSH: "9.2", fail: map[string]targettest.Answer{}, effective: map[string]string{}}
	r.Handle = m.answer
	m.put(target.OSRelease, debian12, 0o644)
	m.put(target.Shell, elfAMD64, 0o755)
	m.put(module, elfAMD64, 0o644)
	m.put(tally, elfAMD64+" nodelay", 0o644)
	m.put(target.SSHD, elfAMD64, 0o755)
	m.put(target.SSH, elfAMD64, 0o755)
	m.put(target.PAMService, stock(tb, "pam.d-sshd"), 0o644)
	for _, inc := range []string{"account", "session", "password"} {
		m.put("/etc/pam.d/common-"+inc, inc+" required pam_unix.so\n", 0o644)
	}
	m.put("/etc/pam.d/common-auth", "auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\nauth required pam_permit.so\n", 0o644)
	m.put(target.SSHDConfig, stock(tb, "sshd_config"), 0o644)
	m.put(unit, stock(tb, "ssh.service"), 0o644)
	m.put(target.Passwd, "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\nalice:x:1000:1000::/home/alice:/bin/bash\n", 0o644)
	m.put("/run/sshd/x", "", 0o644)
	m.put("/lib/systemd/system/systemd-timesyncd.service", "[Install]\nWantedBy=sysinit.target\nAlias=dbus-org.freedesktop.timesync1.service\n", 0o644)
	m.put("/etc/systemd/system/sysinit.target.wants/systemd-timesyncd.service", "", 0o644) // a link, on a real one
	return m
}

func (m *machine) put(name, content string, mode os.FileMode) {
	m.tb.Helper()
	targettest.Put(m.tb, m.Target, name, content, mode)
}

func (m *machine) read(name string) string {
	m.tb.Helper()
	b, err := m.ReadFile(name)
	if err != nil {
		m.tb.Fatal(err)
	}
	return string(b)
}

// edit replaces text in a file of the machine.
func (m *machine) edit(name, old, new string) {
	m.tb.Helper()
	text := m.read(name)
	if !strings.Contains(text, old) {
		m.tb.Fatalf("%s has no %q", name, old)
	}
	fi, _ := m.Stat(name)
	m.put(name, strings.ReplaceAll(text, old, new), fi.Mode().Perm())
}

func (m *machine) must(err error) {
	m.tb.Helper()
	if err != nil {
		m.tb.Fatal(err)
	}
}

func (m *machine) answer(argv []string) targettest.Answer {
	line := strings.Join(argv, " ")
	for begin, a := range m.fail {
		if strings.HasPrefix(line, begin) {
			return a
		}
	}
	switch {
	case line == target.SSHD+" -V":
		return targettest.Answer{Stderr: "OpenSSH_" + m.openSSH + ", OpenSSL 3.0.19"}
	case argv[0] == target.SSH && argv[1] == "-Q":
		if a, ok := m.algs[argv[2]]; ok {
			return targettest.Answer{Stdout: a}
		}
		for _, s := range algorithms { // the longest list comes first
			if s.keyword == argv[2] || s.query == argv[2] {
				return targettest.Answer{Stdout: strings.ReplaceAll(s.value, ",", "\n")}
			}
		}
	case strings.HasPrefix(line, target.SSHD+" -T -C user="):
		user, _, _ := strings.Cut(strings.TrimPrefix(line, target.SSHD+" -T -C user="), ",")
		return targettest.Answer{Stdout: m.settings(user)}
	case argv[0] == target.DpkgQuery:
		return targettest.Answer{Stdout: "libpam-google-authenticator 20191231-2 installed\nopenssh-server 1:9.2p1-2+deb12u10 installed\n"}
	case argv[0] == target.AptGet && m.apt != nil:
		m.apt(argv)
	}
	return targettest.Answer{}
}

// settings is what sshd -T says.
func (m *machine) settings(user string) string {
	var b strings.Builder
	for _, list := range [][]setting{auth, session} {
		for _, s := range known(list, v(10, 0), new(policy.Policy).WithDefaults().SSHD) {
			value := s.value
			if s.keyword == "AuthenticationMethods" && slices.Contains(m.keyAlone, user) {
				value = keyAlone
			}
			if other, ok := m.effective[s.keyword]; ok {
				value = other
			}
			fmt.Fprintf(&b, "%s %s\n", strings.ToLower(s.keyword), value)
		}
	}
	return b.String()
}

func (m *machine) options() Options {
	agent := filepath.Join(m.tb.TempDir(), "totp-agent")
	if err := os.WriteFile(agent, []byte(elfAMD64), 0o755); err != nil {
		m.tb.Fatal(err)
	}
	const text = "# ours\nversion: 1\nissuer: Example Hosting\n"
	p, err := policy.Parse(policy.Image, "image.yaml", []byte(text))
	m.must(err)
	return Options{Policy: p, Agent: agent}
}

func (m *machine) bake() *Report {
	m.tb.Helper()
	r, err := Run(m.tb.Context(), m.Target, m.options())
	m.must(err)
	return r
}

// A state is what is on a disk: path → what one would notice.
type state map[string]string

// snapshot reads the disk. Times of directories and links count only where times
// is set, those under /run never.
func snapshot(tb testing.TB, root string, times bool) state {
	tb.Helper()
	s := state{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(p, root)
		uid, gid, _ := target.Owner(fi)
		line := fmt.Sprintf("%v %d:%d", fi.Mode(), uid, gid)
		if fi.Mode().IsRegular() || times && name != "/run" && !strings.HasPrefix(name, "/run/") {
			line += fi.ModTime().Format(" 15:04:05.000000000")
		}
		switch {
		case fi.Mode().IsRegular():
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			sum := sha256.Sum256(b)
			line += " " + hex.EncodeToString(sum[:8])
		case fi.Mode()&fs.ModeSymlink != 0:
			dest, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " → " + dest
		}
		s[name] = line
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// diff names what differs.
func (s state) diff(other state) []string {
	var ds []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if s[name] != other[name] {
			ds = append(ds, fmt.Sprintf("%s: %s, then %q", name, s[name], other[name]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(other)) {
		if _, ok := s[name]; !ok {
			ds = append(ds, name+": appeared")
		}
	}
	return ds
}

// errCommand is how a faked command fails.
var errCommand = errors.New("exit status 1")
