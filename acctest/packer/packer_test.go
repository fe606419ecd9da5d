// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package packer

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNewEnough(t *testing.T) {
	tests := map[string]bool{
		"1.15.0": true, "1.11.0": true, "1.11.0-dev": true, "2.0.0": true,
		"1.10.9": false, "0.99.0": false, "1.9.5": false, "": false, "1.11": false, "x": false,
	}
	for version, want := range tests {
		if got := newEnough(version); got != want {
			t.Errorf("%q: got %v", version, got)
		}
	}
}

// program puts a shell script with a name into a directory of its own.
func program(t *testing.T, name, script string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestAskVersion(t *testing.T) {
	good := program(t, "packer", "echo noise; echo Packer v1.12.3; echo 'Your version of Packer is out of date!'")
	if got, err := askVersion(t.Context(), good); err != nil || got != "1.12.3" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := askVersion(t.Context(), program(t, "packer", "cat")); !errors.Is(err, errNoVersion) {
		t.Errorf("another program called packer: %v", err)
	}
	var exit *exec.ExitError
	if _, err := askVersion(t.Context(), program(t, "packer", "exit 3")); !errors.As(err, &exit) {
		t.Errorf("failing program: %v", err)
	}
}

func TestFindTakesThePackerOnPath(t *testing.T) {
	name := program(t, "packer", "echo Packer v1.14.0")
	t.Setenv("PATH", filepath.Dir(name)+":"+os.Getenv("PATH"))
	p, err := Find(t.Context(), t.TempDir(), t.TempDir(), t.TempDir(), io.Discard)
	if err != nil || p.Program != name || p.Version != "1.14.0" {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestFindDoesNotTakeAnOldPacker(t *testing.T) {
	name := program(t, "packer", "echo Packer v1.9.0")
	t.Setenv("PATH", filepath.Dir(name)+":"+os.Getenv("PATH"))
	// Without acctest/tools there is nothing to build instead.
	if p, err := Find(t.Context(), t.TempDir(), t.TempDir(), t.TempDir(), io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %+v, %v", p, err)
	}
}

func TestRunIsApartFromTheUser(t *testing.T) {
	t.Setenv("PACKER_LOG", "1")
	t.Setenv("PKR_VAR_secret", "x")
	home := t.TempDir()
	p := &Packer{Program: program(t, "packer", "env; pwd"), home: home}
	var out bytes.Buffer
	if err := p.Run(t.Context(), home, &out, "build"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	for _, want := range []string{"PACKER_PLUGIN_PATH=" + home + "/plugins", "PACKER_CONFIG_DIR=" + home + "/config", "CHECKPOINT_DISABLE=1", home} {
		if !slices.Contains(lines, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(out.String(), "PACKER_LOG") || strings.Contains(out.String(), "PKR_VAR_") {
		t.Error("the user's variables are passed on")
	}
}

func TestRunFails(t *testing.T) {
	p := &Packer{Program: program(t, "packer", "echo reason; exit 1"), home: t.TempDir()}
	var exit *exec.ExitError
	err := p.Run(t.Context(), p.home, io.Discard, "build")
	if !errors.As(err, &exit) || !strings.Contains(err.Error(), "reason") {
		t.Errorf("got %v", err)
	}
}

func TestTail(t *testing.T) {
	w := &tail{max: 5}
	for _, s := range []string{"abc", "defg", "", "hi"} {
		io.WriteString(w, s)
	}
	if w.String() != "efghi" {
		t.Errorf("got %q", w)
	}
}
