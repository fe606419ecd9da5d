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
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/packer-plugin-totp/packer-plugin-totp/acctest/tool"
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
	w := &tool.Tail{Max: 5}
	for _, s := range []string{"abc", "defg", "", "hi"} {
		io.WriteString(w, s)
	}
	if w.String() != "efghi" {
		t.Errorf("got %q", w)
	}
}

// TestInstalledQEMU: a plugin that is there is taken, the newest release first, and
// one that Packer refuses is passed over.
func TestInstalledQEMU(t *testing.T) {
	plugins := t.TempDir()
	t.Setenv("PACKER_PLUGIN_PATH", plugins)
	dir := filepath.Join(plugins, "github.com", "hashicorp", "qemu")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := func(version string) string {
		return "packer-plugin-qemu_v" + version + "_x5.0_linux_" + runtime.GOARCH
	}
	for _, file := range []string{
		name("1.0.8"), name("1.0.9"), name("1.1.2"), name("1.0.10"), name("1.2.0-dev"), name("1.1.2") + "_SHA256SUM",
		"packer-plugin-qemu_v1.3.0_x5.0_linux_other", "packer-plugin-qemu",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, file := range installed(qemuSource, oldestQEMU) {
		got = append(got, filepath.Base(file))
	}
	if want := []string{name("1.1.2"), name("1.0.10"), name("1.0.9")}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}

	var log bytes.Buffer
	home := t.TempDir()
	p := &Packer{Program: program(t, "packer", `case $4 in *1.1.2*) echo broken; exit 1;; esac; echo "$4" >`+home+"/taken"), home: home,
		tools: tools{module: t.TempDir(), cache: t.TempDir(), log: &log}}
	if err := p.InstallQEMU(t.Context()); err != nil {
		t.Fatal(err)
	}
	taken, err := os.ReadFile(filepath.Join(home, "taken"))
	if err != nil || strings.TrimSpace(string(taken)) != filepath.Join(dir, name("1.0.10")) {
		t.Errorf("took %q, %v", taken, err)
	}
	if !strings.Contains(log.String(), name("1.1.2")) {
		t.Errorf("log: %q", log.String())
	}

	// Where there is none, the pinned one is built: here from nothing.
	t.Setenv("PACKER_PLUGIN_PATH", t.TempDir())
	if err := p.InstallQEMU(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without one: %v", err)
	}
}

func TestPluginDirs(t *testing.T) {
	for _, name := range []string{"PACKER_PLUGIN_PATH", "PACKER_CONFIG_DIR", "XDG_CONFIG_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", "/h")
	check := func(want ...string) {
		t.Helper()
		if got := pluginDirs(); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	check("/h/.config/packer/plugins", "/h/.packer.d/plugins")
	t.Setenv("XDG_CONFIG_HOME", "/x")
	check("/x/packer/plugins", "/h/.packer.d/plugins")
	t.Setenv("PACKER_CONFIG_DIR", "/c")
	check("/c/plugins")
	t.Setenv("PACKER_PLUGIN_PATH", "/a:/b")
	check("/a", "/b")
}
