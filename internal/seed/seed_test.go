// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package seed

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

func TestFiles(t *testing.T) {
	doc := []byte("#cloud-config\nhostname: web\n")
	files := Files("i-1", "web-1", doc, false)
	if got := string(files["meta-data"]); got != "instance-id: i-1\nlocal-hostname: web-1\n" {
		t.Errorf("meta-data is %q", got)
	}
	if !bytes.Equal(files["user-data"], doc) || files["vendor-data"] != nil {
		t.Errorf("user-data is %q, vendor-data %q", files["user-data"], files["vendor-data"])
	}
	files = Files("i-1", "", doc, true)
	if !bytes.Equal(files["vendor-data"], doc) || len(files["user-data"]) == 0 {
		t.Errorf("user-data is %q, vendor-data %q", files["user-data"], files["vendor-data"])
	}
}

func TestWriteDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "seed")
	files := Files("i-1", "", []byte("x"), true)
	if err := WriteDir(dir, files); err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is %q (%v), want %q", name, got, err, want)
		}
		if st, _ := os.Stat(filepath.Join(dir, name)); runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, st.Mode())
		}
	}
	if err := WriteDir(dir, files); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v, want ErrExist", err)
	}
}

func TestWriteISO(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "seed.iso")
	files := Files("i-1", "", bytes.Repeat([]byte("user-data\n"), 3000), true)
	if err := WriteISO(name, files); err != nil {
		t.Fatal(err)
	}
	if err := WriteISO(name, files); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v, want ErrExist", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left in the directory: %v", left)
	}
	if st, _ := os.Stat(name); runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	image, err := iso9660.Read(file.New(f, true), 0, 0, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimRight(image.Label(), "\x00 "); got != Label {
		t.Errorf("the volume is called %q", got)
	}
	for name, want := range files {
		got, err := fs.ReadFile(image, name)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes (%v), want %d", name, len(got), err, len(want))
		}
	}
}

// TestISOByOthers has the image read by what the kernel and people use.
func TestISOByOthers(t *testing.T) {
	if _, err := exec.LookPath("xorriso"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("xorriso is needed: %v; go run ./acctest/setup test installs it", err)
		}
		t.Skipf("xorriso is not installed: %v", err)
	}
	dir := t.TempDir()
	name := filepath.Join(dir, "seed.iso")
	files := Files("i-1", "", []byte("#cloud-config\nhostname: web\n"), false)
	if err := WriteISO(name, files); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("xorriso", "-indev", name, "-pvd_info").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("Volume Id    : "+Label)) {
		t.Errorf("%v\n%s", err, out)
	}
	for file, want := range files {
		to := filepath.Join(dir, file)
		if out, err := exec.Command("xorriso", "-osirrox", "on", "-indev", name, "-extract", "/"+file, to).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		if got, _ := os.ReadFile(to); !bytes.Equal(got, want) {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
}
