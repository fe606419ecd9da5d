// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// kexInit writes what a server begins with. The lists are those of RFC 4253
// section 7.1.
func kexInit(version string, lists ...string) []byte {
	payload := append([]byte{msgKexInit}, make([]byte, 16)...)
	for i := range 10 {
		list := ""
		if i < len(lists) {
			list = lists[i]
		}
		payload = binary.BigEndian.AppendUint32(payload, uint32(len(list)))
		payload = append(payload, list...)
	}
	payload = append(payload, 0, 0, 0, 0, 0)
	const padding = 7
	out := binary.BigEndian.AppendUint32([]byte(version+"\r\n"), uint32(1+len(payload)+padding))
	out = append(out, padding)
	out = append(out, payload...)
	return append(out, make([]byte, padding)...)
}

func TestParseHello(t *testing.T) {
	t.Parallel()
	whole := kexInit("SSH-2.0-OpenSSH_10.0", "mlkem768x25519-sha256,kex-strict-s-v00@openssh.com", "ssh-ed25519", "aes128-ctr", "aes256-ctr", "", "hmac-sha2-256")
	want := hello{version: "SSH-2.0-OpenSSH_10.0", kex: []string{"mlkem768x25519-sha256", strictKex}, hostKeys: []string{"ssh-ed25519"},
		clientCiphers: []string{"aes128-ctr"}, ciphers: []string{"aes256-ctr"}, macs: []string{"hmac-sha2-256"}}
	for _, before := range []string{"", "a line ahead\r\nand another\n"} {
		in := append([]byte(before), whole...)
		if got, err := parseHello(append(in, "what follows"...)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
		for n := range in {
			if _, err := parseHello(in[:n]); !errors.Is(err, errShort) {
				t.Errorf("the first %d bytes: %v", n, err)
			}
		}
	}
	long := bytes.Clone(whole)
	binary.BigEndian.PutUint32(long[len("SSH-2.0-OpenSSH_10.0\r\n"):], maxPacket+1)
	other := bytes.Clone(whole)
	other[len("SSH-2.0-OpenSSH_10.0\r\n")+5] = 21
	for name, in := range map[string][]byte{
		"version 1":      kexInit("SSH-1.5-Old", "a"),
		"long line":      []byte(strings.Repeat("x", 300) + "\n"),
		"endless line":   []byte(strings.Repeat("x", 300)),
		"many lines":     []byte(strings.Repeat("x\n", maxLines)),
		"long packet":    long,
		"another packet": other,
		"control bytes":  kexInit("SSH-2.0-x", "a\x1b[1m"),
		"empty name":     kexInit("SSH-2.0-x", "a,,b"),
		"long name":      kexInit("SSH-2.0-x", strings.Repeat("a", 65)),
	} {
		if got, err := parseHello(in); !errors.Is(err, errHello) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func FuzzParseHello(f *testing.F) {
	f.Add(kexInit("SSH-2.0-OpenSSH_10.0", "a,b", "c", "d", "e", "f", "g", "none", "none"))
	f.Add([]byte("hello\nSSH-2.0-x\r\n\x00\x00\x00\x0c\x0a\x14"))
	f.Fuzz(func(t *testing.T, in []byte) {
		h, err := parseHello(in)
		if err != nil {
			if !errors.Is(err, errShort) && !errors.Is(err, errHello) {
				t.Error(err)
			}
			return
		}
		for _, name := range slices.Concat(h.kex, h.hostKeys, h.clientCiphers, h.ciphers, h.clientMACs, h.macs) {
			if !plainName(name) {
				t.Errorf("the name %q", name)
			}
		}
		// Whole is whole: a byte more changes nothing.
		if again, err := parseHello(append(slices.Clone(in), 0)); err != nil || !reflect.DeepEqual(again, h) {
			t.Errorf("%+v, then %+v, %v", h, again, err)
		}
	})
}

func TestClassify(t *testing.T) {
	t.Parallel()
	got := classify([]string{"mlkem768x25519-sha256", "curve25519-sha256", strictKex, extInfo, "brand-new@example.org"}, []string{"hmac-sha1", "curve25519-sha256"})
	want := []Algorithm{{"mlkem768x25519-sha256", PostQuantum, ""}, {"curve25519-sha256", OK, ""}, {"brand-new@example.org", Unknown, ""}, {"hmac-sha1", Weak, sha1}}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if text, weak := summary(got); !weak || text != "1 weak, 1 post-quantum, 1 ok, 1 unknown: hmac-sha1 (SHA-1)" {
		t.Errorf("%q, %v", text, weak)
	}
	if text, weak := summary(got[:3]); weak || text != "1 post-quantum, 1 ok, 1 unknown" {
		t.Errorf("%q, %v", text, weak)
	}
	for _, name := range postQuantum {
		if why, ok := known[name]; !ok || why != "" {
			t.Errorf("%s: %q, %v", name, why, ok)
		}
	}
}

// What bake asks sshd for is known here, and none of it weak.
func TestBakedAlgorithms(t *testing.T) {
	t.Parallel()
	files, _ := filepath.Glob("../bake/testdata/00-00-totp.conf-openssh-*.golden")
	n := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			keyword, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			if !slices.Contains([]string{"KexAlgorithms", "Ciphers", "MACs", "HostKeyAlgorithms"}, keyword) {
				continue
			}
			for _, a := range classify(strings.Split(value, ",")) {
				n++
				if a.Class != OK && a.Class != PostQuantum {
					t.Errorf("%s: %s %s is %s", filepath.Base(file), keyword, a.Name, a.Class)
				}
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d names were looked at", n)
	}
}

func TestTerrapin(t *testing.T) {
	t.Parallel()
	const chacha, cbcCipher, etm = "chacha20-poly1305@openssh.com", "aes128-cbc", "hmac-sha2-256-etm@openssh.com"
	tests := []struct {
		h      hello
		strict bool
		open   []string
	}{
		{hello{kex: []string{strictKex}, ciphers: []string{chacha}}, true, []string{chacha}},
		{hello{ciphers: []string{chacha}}, false, []string{chacha}},
		{hello{ciphers: []string{"aes256-ctr"}, macs: []string{etm}}, false, nil},
		{hello{clientCiphers: []string{cbcCipher}, macs: []string{etm}}, false, []string{cbcCipher}},
		{hello{ciphers: []string{cbcCipher}, macs: []string{"hmac-sha2-256"}}, false, nil},
	}
	for _, tt := range tests {
		if strict, open := terrapin(tt.h); strict != tt.strict || !slices.Equal(open, tt.open) {
			t.Errorf("%+v: %v, %q", tt.h, strict, open)
		}
	}
}
