// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

package main

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/packer-plugin-totp/packer-plugin-totp/version"
)

// What can be wrong with the files of a release.
var (
	errMissing  = errors.New("is missing")
	errStray    = errors.New("does not belong to the release")
	errSum      = errors.New("does not have the sum that is listed")
	errContents = errors.New("does not contain what it should")
	errVersion  = errors.New("is of another version than its name says")
)

// description is what `packer-plugin-totp describe` answers.
type description struct {
	Version      string   `json:"version"`
	APIVersion   string   `json:"api_version"`
	Provisioners []string `json:"provisioners"`
}

func describe(ctx context.Context, binary string) (description, error) {
	out, err := exec.CommandContext(ctx, binary, "describe").Output()
	if err != nil {
		return description{}, fmt.Errorf("%s describe: %w", filepath.Base(binary), err)
	}
	var d description
	if err := json.Unmarshal(out, &d); err != nil {
		return description{}, fmt.Errorf("%s describe: %w", filepath.Base(binary), err)
	}
	return d, nil
}

// The name of a plugin's archive, with the API version as its group.
var pluginName = regexp.MustCompile(`^packer-plugin-totp_v[0-9.]+_(x[0-9]+\.[0-9]+)_[a-z]+_[a-z0-9]+\.zip$`)

// check looks at the files in dir as an installer would: the names, the sums,
// what is in the archives, and what the plugin for this machine says of itself.
func check(ctx context.Context, dir string, describe func(context.Context, string) (description, error)) error {
	sums, err := readSums(dir, pluginSums(), len(platforms))
	if err != nil {
		return err
	}
	api := ""
	for name := range sums {
		m := pluginName.FindStringSubmatch(name)
		if m == nil || api != "" && m[1] != api {
			return fmt.Errorf("%s: %s: %w", pluginSums(), name, errStray)
		}
		api = m[1]
	}
	tools, err := readSums(dir, totpctlSums(), len(platforms)+1)
	if err != nil {
		return err
	}

	expected := []string{pluginSums(), totpctlSums(), pageName()}
	if _, err := checkSum(dir, pageName(), tools); err != nil {
		return err
	}
	for _, p := range platforms {
		name := pluginBase(p, api)
		if err := checkArchive(dir, name+".zip", sums, name+p.exe()); err != nil {
			return err
		}
		tool := totpctlBase(p)
		if err := checkArchive(dir, tool+".zip", tools, "LICENSE", "totpctl"+p.exe()); err != nil {
			return err
		}
		expected = append(expected, name+".zip", tool+".zip")
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range found {
		if !slices.Contains(expected, f.Name()) {
			return fmt.Errorf("%s: %w", f.Name(), errStray)
		}
	}

	here := platform{runtime.GOOS, runtime.GOARCH}
	if !slices.Contains(platforms, here) {
		fmt.Printf("release: %d files checked; none is for this machine, so that none was run\n", len(found))
		return nil
	}
	if err := checkRun(ctx, dir, here, api, describe); err != nil {
		return err
	}
	fmt.Printf("release: %d files checked, version %s, API %s\n", len(found), version.Version, api)
	return nil
}

// checkSum reads a file and verifies its sum.
func checkSum(dir, name string, sums map[string]string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, errMissing)
	} else if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	if sums[name] != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("%s: %w", name, errSum)
	}
	return data, nil
}

// checkArchive verifies an archive's sum and the names in it.
func checkArchive(dir, name string, sums map[string]string, inside ...string) error {
	data, err := checkSum(dir, name, sums)
	if err != nil {
		return err
	}
	r, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fmt.Errorf("%s: %w: %w", name, errContents, err)
	}
	var names []string
	for _, f := range r.File {
		names = append(names, f.Name)
		if f.UncompressedSize64 == 0 || f.Name != "LICENSE" && f.Mode().Perm() != 0o755 {
			return fmt.Errorf("%s: %s: %w", name, f.Name, errContents)
		}
	}
	if !slices.Equal(names, inside) {
		return fmt.Errorf("%s: %w: %q instead of %q", name, errContents, names, inside)
	}
	return nil
}

// checkRun unpacks the plugin for this machine and asks it what it is.
func checkRun(ctx context.Context, dir string, here platform, api string, describe func(context.Context, string) (description, error)) error {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	name := pluginBase(here, api)
	r, err := zip.OpenReader(filepath.Join(dir, name+".zip"))
	if err != nil {
		return err
	}
	defer r.Close()
	from, err := r.Open(name + here.exe())
	if err != nil {
		return err
	}
	defer from.Close()
	data, err := io.ReadAll(from)
	if err != nil {
		return err
	}
	bin := filepath.Join(work, name+here.exe())
	if err := os.WriteFile(bin, data, 0o700); err != nil {
		return err
	}
	d, err := describe(ctx, bin)
	if err != nil {
		return err
	}
	if d.Version != version.Version || d.APIVersion != api || len(d.Provisioners) != 1 {
		return fmt.Errorf("%s: %w: it says %+v", name, errVersion, d)
	}
	return nil
}

// readSums reads a list of so many files as sha256sum(1) writes it.
func readSums(dir, name string, want int) (map[string]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", name, errMissing)
	} else if err != nil {
		return nil, err
	}
	sums := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		sum, file, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		if !ok || len(sum) != 2*sha256.Size {
			return nil, fmt.Errorf("%s: %q: %w", name, line, errContents)
		}
		sums[file] = sum
	}
	if len(sums) != want {
		return nil, fmt.Errorf("%s: %w: %d sums, want %d", name, errContents, len(sums), want)
	}
	return sums, nil
}
