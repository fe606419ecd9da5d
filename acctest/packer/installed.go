// Copyright the packer-plugin-totp authors
// SPDX-License-Identifier: MPL-2.0

//go:build linux

package packer

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
)

// The oldest QEMU plugin that examples/qemu-debian takes.
var oldestQEMU = [3]int{1, 0, 9}

// pluginFile is the name that packer init gives to a plugin's release.
var pluginFile = regexp.MustCompile(`^packer-plugin-[a-z]+_v(\d+)\.(\d+)\.(\d+)_x\d+\.\d+_linux_` + runtime.GOARCH + `$`)

// installed lists the releases of a plugin, no older than that, which the
// machine's user has installed where Packer looks for them, the newest first.
// Development versions are left out.
func installed(source string, oldest [3]int) []string {
	type release struct {
		file    string
		version [3]int
	}
	var found []release
	for _, dir := range pluginDirs() {
		entries, err := os.ReadDir(filepath.Join(dir, filepath.FromSlash(source)))
		if err != nil {
			continue
		}
		for _, e := range entries {
			m := pluginFile.FindStringSubmatch(e.Name())
			if m == nil || !e.Type().IsRegular() {
				continue
			}
			r := release{file: filepath.Join(dir, filepath.FromSlash(source), e.Name())}
			for i := range r.version {
				r.version[i], _ = strconv.Atoi(m[i+1])
			}
			if slices.Compare(r.version[:], oldest[:]) >= 0 {
				found = append(found, r)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b release) int { return slices.Compare(b.version[:], a.version[:]) })
	var files []string
	for _, r := range found {
		files = append(files, r.file)
	}
	return files
}

// pluginDirs is where Packer looks for plugins, see its documentation,
// "Configuring Packer": one directory where a variable names it, otherwise one in
// the user's configuration.
func pluginDirs() []string {
	if dir := os.Getenv("PACKER_PLUGIN_PATH"); dir != "" {
		return filepath.SplitList(dir)
	}
	if dir := os.Getenv("PACKER_CONFIG_DIR"); dir != "" {
		return []string{filepath.Join(dir, "plugins")}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	config := cmp.Or(os.Getenv("XDG_CONFIG_HOME"), filepath.Join(home, ".config"))
	return []string{filepath.Join(config, "packer", "plugins"), filepath.Join(home, ".packer.d", "plugins")}
}
