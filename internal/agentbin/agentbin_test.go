// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package agentbin

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"strings"
	"testing"
)

func zip(t *testing.T, data string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestAgent(t *testing.T) {
	whole := zip(t, "\x7fELF of amd64")
	full := map[string][]byte{
		"amd64": whole,
		"arm64": whole[:len(whole)-9],
		"riscv": zip(t, "#!/bin/sh"),
		"mips":  []byte("no gzip"),
		"sparc": zip(t, "\x7fELF"+strings.Repeat("\x00", maxSize)),
	}
	for _, tt := range []struct {
		name   string
		packed map[string][]byte
		arch   string
		want   string
		err    error
	}{
		{"embedded", full, "amd64", "\x7fELF of amd64", nil},
		{"cut short", full, "arm64", "", ErrDamaged},
		{"not an executable", full, "riscv", "", ErrDamaged},
		{"not gzip", full, "mips", "", ErrDamaged},
		{"too large", full, "sparc", "", ErrDamaged},
		{"unknown", full, "s390x", "", ErrNoArch},
		{"none", nil, "amd64", "", ErrNotEmbedded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := agent(tt.packed, tt.arch)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestEmbedded looks at what this very build embeds: with -tags embed_agent the
// agents must be Linux programs for the architectures they are named after.
func TestEmbedded(t *testing.T) {
	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	if n := len(Archs()); n != 0 && n != len(machines) {
		t.Errorf("Archs() = %q, want none or all of %d", Archs(), len(machines))
	}
	for _, arch := range Archs() {
		bin, err := Agent(arch)
		if err != nil {
			t.Error(err)
			continue
		}
		f, err := elf.NewFile(bytes.NewReader(bin))
		if err != nil {
			t.Errorf("%s: %v", arch, err)
			continue
		}
		if f.Machine != machines[arch] {
			t.Errorf("%s: the agent is for %v", arch, f.Machine)
		}
		if libs, _ := f.ImportedLibraries(); len(libs) != 0 {
			t.Errorf("%s: the agent is not static: it needs %q", arch, libs)
		}
	}
}
