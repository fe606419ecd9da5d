// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package target

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// OS is what /etc/os-release says, os-release(5).
type OS struct {
	ID         string // "debian"
	VersionID  string // "12"
	PrettyName string // for people
}

// OS reads /etc/os-release, or /usr/lib/os-release where that is missing.
func (t *Target) OS() (OS, error) {
	b, err := t.ReadFile(OSRelease)
	if err != nil {
		b2, err2 := t.ReadFile(OSReleaseVendor)
		if err2 != nil {
			return OS{}, err
		}
		b = b2
	}
	return parseOSRelease(string(b)), nil
}

func parseOSRelease(s string) OS {
	var o OS
	for line := range strings.Lines(s) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok {
			continue
		}
		value = unquote(value)
		switch key {
		case "ID":
			o.ID = value
		case "VERSION_ID":
			o.VersionID = value
		case "PRETTY_NAME":
			o.PrettyName = value
		}
	}
	return o
}

// unquote undoes the quoting of os-release(5): single or double quotes, with
// backslashes before what the shell would take for its own.
func unquote(s string) string {
	if len(s) < 2 || s[0] != s[len(s)-1] || s[0] != '"' && s[0] != '\'' {
		return s
	}
	in, quote := s[1:len(s)-1], s[0]
	if quote == '\'' {
		return in
	}
	var b strings.Builder
	for i := 0; i < len(in); i++ {
		if in[i] == '\\' && i+1 < len(in) && strings.IndexByte("\"$`\\", in[i+1]) >= 0 {
			i++
		}
		b.WriteByte(in[i])
	}
	return b.String()
}

// ErrArch says that the guest's programs are for a machine that no agent is
// built for.
var ErrArch = errors.New("architecture without an agent")

// Arch is the architecture of the guest's programs in Go's words: "amd64",
// "arm64". It is read from the guest's shell, not from the kernel that happens
// to run: a 64-bit kernel may carry a 32-bit system.
func (t *Target) Arch() (string, error) {
	f, err := t.OpenFile(Shell, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return ELFArch(Shell, f)
}

// ELFArch is the architecture of the program that r reads, by its ELF header
// (elf(5)). The name is for errors, which are [ErrArch].
func ELFArch(name string, r io.Reader) (string, error) {
	var h [20]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return "", fmt.Errorf("%s: %w", name, ErrArch)
	}
	return elfArch(name, h)
}

func elfArch(name string, h [20]byte) (string, error) {
	const class64, littleEndian = 2, 1
	if string(h[:4]) == "\x7fELF" && h[4] == class64 && h[5] == littleEndian {
		switch binary.LittleEndian.Uint16(h[18:]) {
		case 62:
			return "amd64", nil
		case 183:
			return "arm64", nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, ErrArch)
}

// Hostname is the machine's name: the kernel's on the running machine, that
// of /etc/hostname elsewhere.
func (t *Target) Hostname() (string, error) {
	if t.Live() {
		return os.Hostname()
	}
	b, err := t.ReadFile(HostnameFile)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return line, nil
		}
	}
	return "localhost", nil // what systemd makes of an empty file, hostname(5)
}

// An OpenSSH is the version of the guest's sshd.
type OpenSSH struct{ Major, Minor int }

func (v OpenSSH) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// AtLeast compares versions.
func (v OpenSSH) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

var openSSHVersion = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`OpenSSH_(\d{1,3})\.(\d{1,3})`)
})

// ErrNoOpenSSH says that the guest has no sshd, or not OpenSSH's.
var ErrNoOpenSSH = errors.New("no OpenSSH server found")

// OpenSSH asks the guest's sshd for its version. Before 9.2 sshd knew no -V,
// but named its version in the usage that it printed instead.
func (t *Target) OpenSSH(ctx context.Context) (OpenSSH, error) {
	stdout, stderr, err := t.Output(ctx, SSHD, "-V")
	m := openSSHVersion().FindStringSubmatch(string(stdout) + "\n" + string(stderr))
	if m == nil {
		return OpenSSH{}, errors.Join(ErrNoOpenSSH, err)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return OpenSSH{major, minor}, nil
}
